# proxy.pl TARGET_PORT PORT_FILE [PORT]: passes TCP connections on 127.0.0.1 to TARGET_PORT, one
# process each. SIGTERM is a network that is gone: all connections end, new ones are refused.
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;

my ($target, $port_file, $port) = @ARGV;
my $listener = IO::Socket::INET->new(
    LocalAddr => '127.0.0.1', LocalPort => $port || 0, Listen => 64, ReuseAddr => 1,
) or die "listen: $!";
my %children;
$SIG{TERM} = sub { kill 'KILL', keys %children; exit };
open my $file, '>', "$port_file.new" or die "$port_file: $!";
print $file $listener->sockport, "\n";
close $file;
rename "$port_file.new", $port_file or die "$port_file: $!";

while (1) {
    my $client = $listener->accept or next;
    if (my $child = fork) {
        $children{$child} = 1;
        next;
    }
    $SIG{TERM} = 'DEFAULT';
    close $listener;
    my $server = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $target) or exit 1;
    my %other = (fileno($client) => $server, fileno($server) => $client);
    my $select = IO::Select->new($client, $server);
    while (1) {
        for my $from ($select->can_read) {
            sysread $from, my $data, 65536 or exit;
            syswrite $other{fileno $from}, $data or exit;
        }
    }
}
