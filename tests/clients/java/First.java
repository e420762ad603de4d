import com.sun.net.httpserver.HttpsConfigurator;
import com.sun.net.httpserver.HttpsServer;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.security.KeyStore;
import java.security.Security;
import java.security.cert.X509Certificate;
import java.util.Arrays;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** HTTPS, server and client, where SunPKCS11 is the first provider of java.security. */
public final class First {
    private static final byte[] PAGE = new byte[20_000_000];

    public static void main(String[] arguments) throws Exception {
        Report report = new Report();
        String service = "managed-hsm:hsm1";
        String name = Security.getProviders()[0].getName();
        Report.that(name.equals("SunPKCS11-hsm1"), name + " is first");
        KeyStore store = KeyStore.getInstance("PKCS11");
        store.load(null, null);

        KeyManagerFactory keys = KeyManagerFactory.getInstance("SunX509");
        keys.init(store, null);
        SSLContext serving = SSLContext.getInstance("TLS");
        serving.init(keys.getKeyManagers(), null, null);
        KeyStore roots = KeyStore.getInstance("PKCS12");
        roots.load(null, null);
        for (String alias : new String[] {"p256", "rsa2048"}) {
            var chain = store.getCertificateChain(alias);
            roots.setCertificateEntry(alias, (X509Certificate) chain[chain.length - 1]);
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
        trust.init(roots);

        var address = new InetSocketAddress(InetAddress.getLoopbackAddress(), 0);
        HttpsServer server = HttpsServer.create(address, 0);
        server.setHttpsConfigurator(new HttpsConfigurator(serving));
        server.createContext("/", exchange -> {
            exchange.sendResponseHeaders(200, PAGE.length);
            try (var body = exchange.getResponseBody()) {
                body.write(PAGE);
            }
        });
        server.start();
        URI page = URI.create("https://localhost:" + server.getAddress().getPort() + "/");
        try {
            for (String protocol : new String[] {"TLSv1.2", "TLSv1.3"}) {
                SSLContext context = SSLContext.getInstance(protocol);
                context.init(null, trust.getTrustManagers(), null);
                report.counted(protocol + ": HttpsURLConnection", service, "keys/sign", 1, () -> {
                    var connection = (HttpsURLConnection) page.toURL().openConnection();
                    connection.setSSLSocketFactory(context.getSocketFactory());
                    try (var body = connection.getInputStream()) {
                        Report.that(Arrays.equals(body.readAllBytes(), PAGE), "another page");
                    }
                    connection.disconnect();
                });
            }
            SSLContext context = SSLContext.getInstance("TLS");
            context.init(null, trust.getTrustManagers(), null);
            report.counted("HttpClient", service, "keys/sign", 1, () -> {
                HttpClient client = HttpClient.newBuilder().sslContext(context).build();
                HttpRequest request = HttpRequest.newBuilder(page).build();
                var answer = client.send(request, BodyHandlers.ofByteArray());
                Report.that(Arrays.equals(answer.body(), PAGE), "another page");
            });
        } finally {
            server.stop(0);
        }
        System.exit(report.end() == 0 ? 0 : 1);
    }
}
