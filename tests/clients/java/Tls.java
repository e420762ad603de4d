import java.io.InputStream;
import java.net.Socket;
import java.security.KeyStore;
import java.security.Principal;
import java.security.PrivateKey;
import java.security.cert.X509Certificate;
import java.util.Arrays;
import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSession;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509ExtendedKeyManager;

/** A TLS server whose key is the service's, and a client that verifies its chain. */
final class Tls {
    private static final byte[] PAGE = new byte[1_000_000];

    static void check(Report report, Token token) throws Exception {
        for (String alias : Token.KEYS) {
            SSLContext server = SSLContext.getInstance("TLS");
            KeyManager manager = new Only(alias, token.key(alias), token.chain(alias));
            server.init(new KeyManager[] {manager}, null, null);
            for (String protocol : new String[] {"TLSv1.2", "TLSv1.3"}) {
                String what = token.service + ": " + protocol + " server with " + alias;
                report.counted(what + ", once resumed", token.service, "keys/sign", 1,
                    () -> serve(server, protocol, token.chain(alias), 2));
            }
        }
        report.counted(token.service + ": TLS server with all keys of the KeyStore", token.service,
            "keys/sign", 1, () -> {
                var managers = KeyManagerFactory.getInstance("SunX509");
                managers.init(token.store, null);
                SSLContext server = SSLContext.getInstance("TLS");
                server.init(managers.getKeyManagers(), null, null);
                X509Certificate[] roots = new X509Certificate[Token.KEYS.size()];
                for (int i = 0; i < roots.length; i++) {
                    X509Certificate[] chain = token.chain(Token.KEYS.get(i));
                    roots[i] = chain[chain.length - 1];
                }
                serve(server, "TLSv1.3", roots, 1);
            });
    }

    /** Connections of one client: handshake, a page of many records, its bytes compared. */
    private static void serve(
        SSLContext serverContext, String protocol, X509Certificate[] chain, int connections)
        throws Exception {
        SSLContext clientContext = clientThatTrusts(chain);
        var sockets = serverContext.getServerSocketFactory();
        try (var listening = (SSLServerSocket) sockets.createServerSocket(0)) {
            listening.setEnabledProtocols(new String[] {protocol});
            Exception[] fault = new Exception[1];
            Thread serving = new Thread(() -> {
                for (int connection = 0; connection < connections; connection++) {
                    try (var socket = (SSLSocket) listening.accept()) {
                        socket.getInputStream().read();
                        socket.getOutputStream().write(PAGE);
                    } catch (Exception e) {
                        fault[0] = e;
                        return;
                    }
                }
            });
            serving.start();
            try {
                for (int connection = 0; connection < connections; connection++) {
                    fetch(clientContext, protocol, listening.getLocalPort());
                }
            } catch (Exception e) {
                throw fault[0] == null ? e : new Exception("server: " + fault[0], e);
            } finally {
                listening.close();
                serving.join();
            }
        }
    }

    private static void fetch(SSLContext context, String protocol, int port) throws Exception {
        var sockets = context.getSocketFactory();
        try (var socket = (SSLSocket) sockets.createSocket("localhost", port)) {
            SSLParameters parameters = socket.getSSLParameters();
            parameters.setEndpointIdentificationAlgorithm("HTTPS");
            socket.setSSLParameters(parameters);
            socket.setSoTimeout(60_000);
            socket.getOutputStream().write(1);
            SSLSession session = socket.getSession();
            Report.that(session.getProtocol().equals(protocol), session.getProtocol());
            InputStream page = socket.getInputStream();
            Report.that(Arrays.equals(page.readNBytes(PAGE.length), PAGE), "another page");
        }
    }

    /** Trusts the root of a chain, or each self-signed certificate of a list. */
    private static SSLContext clientThatTrusts(X509Certificate[] chain) throws Exception {
        KeyStore roots = KeyStore.getInstance("PKCS12");
        roots.load(null, null);
        for (int i = 0; i < chain.length; i++) {
            if (chain[i].getSubjectX500Principal().equals(chain[i].getIssuerX500Principal())) {
                roots.setCertificateEntry("root" + i, chain[i]);
            }
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
        trust.init(roots);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }

    /** The key manager of a server with one key. */
    private static final class Only extends X509ExtendedKeyManager {
        private final String alias;
        private final PrivateKey key;
        private final X509Certificate[] chain;

        Only(String alias, PrivateKey key, X509Certificate[] chain) {
            this.alias = alias;
            this.key = key;
            this.chain = chain;
        }

        private String choose(String type) {
            boolean rsa = key.getAlgorithm().equals("RSA");
            return type.startsWith(rsa ? "RSA" : "EC") ? alias : null;
        }

        @Override
        public String chooseServerAlias(String type, Principal[] issuers, Socket socket) {
            return choose(type);
        }

        @Override
        public String chooseEngineServerAlias(String type, Principal[] issuers, SSLEngine engine) {
            return choose(type);
        }

        @Override
        public String[] getServerAliases(String type, Principal[] issuers) {
            return choose(type) == null ? null : new String[] {alias};
        }

        @Override
        public X509Certificate[] getCertificateChain(String asked) {
            return chain;
        }

        @Override
        public PrivateKey getPrivateKey(String asked) {
            return key;
        }

        @Override
        public String chooseClientAlias(String[] types, Principal[] issuers, Socket socket) {
            return null;
        }

        @Override
        public String[] getClientAliases(String type, Principal[] issuers) {
            return null;
        }
    }
}
