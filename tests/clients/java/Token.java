import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.Provider;
import java.security.Security;
import java.security.cert.X509Certificate;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.TreeSet;

/** A token through SunPKCS11. */
final class Token {
    static final List<String> KEYS = List.of("p256", "p384", "rsa2048", "rsa4096");

    final Provider provider;
    /** The name of its counters at the emulator. */
    final String service;
    final KeyStore store;

    Token(String cfg, String service) throws Exception {
        this.provider = Security.getProvider("SunPKCS11").configure(cfg);
        // JSSE signs with installed providers only; as the last one it is asked for its own keys.
        Security.addProvider(provider);
        this.service = service;
        this.store = KeyStore.getInstance("PKCS11", provider);
        store.load(null, null);
    }

    PrivateKey key(String alias) throws Exception {
        PrivateKey key = (PrivateKey) store.getKey(alias, null);
        Report.that(key != null, "no key " + alias + " in " + Collections.list(store.aliases()));
        return key;
    }

    X509Certificate[] chain(String alias) throws Exception {
        var chain = store.getCertificateChain(alias);
        return Arrays.copyOf(chain, chain.length, X509Certificate[].class);
    }

    static boolean isRsa(String alias) {
        return alias.startsWith("rsa");
    }

    static void check(Report report, Token token, int chainLength) {
        String where = token.service + ": ";
        report.check(where + "aliases are the keys' names", () -> {
            var aliases = new TreeSet<>(Collections.list(token.store.aliases()));
            Report.that(aliases.equals(new TreeSet<>(KEYS)), aliases.toString());
        });
        for (String alias : KEYS) {
            report.local(where + alias + " is a key entry with its chain", token.service, () -> {
                Report.that(token.store.isKeyEntry(alias), "no key entry");
                PrivateKey key = token.key(alias);
                String type = isRsa(alias) ? "RSA" : "EC";
                Report.that(key.getAlgorithm().equals(type), key.getAlgorithm());
                Report.that(key.getEncoded() == null, "a private key in the clear");
                X509Certificate[] chain = token.chain(alias);
                Report.that(chain.length == chainLength, "a chain of " + chain.length);
                for (int i = 0; i < chain.length; i++) {
                    chain[i].verify(chain[Math.min(i + 1, chain.length - 1)].getPublicKey());
                }
                Report.that(alias.equals(token.store.getCertificateAlias(chain[0])), "alias");
            });
        }
    }
}
