/* A daemon that gives everything up: its children have no files, no environment, no descriptors
   and no privileges, and use what their parent had read. jail MODULE HOSTS EMPTY-FOLDER

   HOSTS takes the place of /etc/hosts; the configuration comes from the environment. Runs as root,
   or in a user namespace of its own. */

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "host.h"

enum { NOBODY = 65534, PATIENCE = 60 };

static struct list *p11;
static unsigned long session;

static void check(const char *what, int answer)
{
    if (answer != 0) fail("%s: %s", what, strerror(errno));
}

static void write_file(const char *path, const char *text)
{
    int file = open(path, O_WRONLY);

    if (file < 0 || write(file, text, strlen(text)) < 0) fail("%s: %s", path, strerror(errno));
    close(file);
}

/* Mounts of our own, and the right to chroot. Whether we are root outside. */
static int own_namespace(void)
{
    const unsigned user = getuid(), group = getgid();
    char map[64];

    if (user == 0) {
        check("unshare(CLONE_NEWNS)", unshare(CLONE_NEWNS));
        return 1;
    }
    check("unshare(CLONE_NEWUSER | CLONE_NEWNS)", unshare(CLONE_NEWUSER | CLONE_NEWNS));
    snprintf(map, sizeof map, "0 %u 1", user);
    write_file("/proc/self/uid_map", map);
    write_file("/proc/self/setgroups", "deny");
    snprintf(map, sizeof map, "0 %u 1", group);
    write_file("/proc/self/gid_map", map);
    return 0;
}

/* All but local sockets: cargo builds a workspace's libraries with the features of all its members,
   so that the module of a test has tokio's signal driver, whose pair of sockets belongs to the
   process for ever. The module alone is built without it. */
static void close_descriptors(void)
{
    struct sockaddr_storage name;
    int fd;

    for (fd = 3; fd < 1024; fd++) {
        socklen_t length = sizeof name;
        if (getsockname(fd, (struct sockaddr *)&name, &length) == 0 && name.ss_family == AF_UNIX)
            continue;
        close(fd);
    }
}

static void give_everything_up(const char *empty, int root)
{
    check("clearenv", clearenv());
    check("chroot", chroot(empty));
    check("chdir", chdir("/"));
    close_descriptors();
    if (root) {
        check("setgroups", setgroups(0, NULL));
        check("setresgid", setresgid(NOBODY, NOBODY, NOBODY));
        check("setresuid", setresuid(NOBODY, NOBODY, NOBODY));
    }
    if (access("/etc", F_OK) == 0) fail("there is an /etc");
}

static void goes_on(void) { works(p11, session, "ec"); }

static void initializes(void)
{
    expect("C_Initialize", p11->call[Initialize](NULL), OK);
    works(p11, open_session(p11, 0), "ec");
}

static void finalizes(void)
{
    expect("C_Finalize", p11->call[Finalize](NULL), OK);
    initializes();
}

static void goes_on_then_begins_again(void)
{
    goes_on();
    finalizes();
    finalizes();
}

static void grandchild(void)
{
    int status = 0;
    pid_t id;

    expect("C_Finalize", p11->call[Finalize](NULL), OK);
    id = fork();
    if (id == 0) {
        initializes();
        _exit(0);
    }
    if (waitpid(id, &status, 0) != id || status != 0) fail("grandchild: 0x%x", (unsigned)status);
    initializes();
}

static void (*const CHILDREN[])(void) = {
    goes_on, initializes, finalizes, goes_on_then_begins_again, grandchild,
};

int main(int argc, char **argv)
{
    int root, status = 0;
    unsigned i;

    if (argc != 4) return 2;
    root = own_namespace();
    check("mount /", mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    check("mount /etc/hosts", mount(argv[2], "/etc/hosts", NULL, MS_BIND, NULL));
    p11 = load(argv[1], RTLD_NOW, NULL);
    expect("C_Initialize", initialize(p11, NULL), OK);
    session = open_session(p11, 0);
    for (i = 0; i < sizeof CHILDREN / sizeof CHILDREN[0]; i++) {
        pid_t id = fork();

        if (id == 0) {
            alarm(PATIENCE);
            give_everything_up(argv[3], root);
            CHILDREN[i]();
            _exit(0);
        }
        if (waitpid(id, &status, 0) != id || status != 0) {
            fail("child %u: status 0x%x", i, (unsigned)status);
        }
        /* Before the second child, the parent has used the module: a token, connections, keys. */
        works(p11, session, "ec");
    }
    expect("C_Finalize", p11->call[Finalize](NULL), OK);
    return 0;
}
