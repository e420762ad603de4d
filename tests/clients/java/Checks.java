import java.security.AuthProvider;
import java.security.PrivateKey;
import java.security.Provider;
import java.security.Security;
import java.security.Signature;
import java.security.KeyStore;
import java.io.IOException;

/** Everything a program does with SunPKCS11; see checks.sh for the files it reads. */
public final class Checks {
    public static void main(String[] arguments) throws Exception {
        Report report = new Report();
        Token vault = new Token("kv1.cfg", "vault:kv1");
        Token hsm = new Token("hsm1.cfg", "managed-hsm:hsm1");
        Token.check(report, vault, 1);
        Token.check(report, hsm, 2);
        for (Token token : new Token[] {vault, hsm}) {
            Signatures.check(report, token);
            Ciphers.check(report, token);
            Tls.check(report, token);
            logout(report, token);
        }
        Generation.check(report, "session-kv1.cfg", "generate-kv1.cfg", "vault:kv1");
        Generation.check(report, "session-hsm1.cfg", "generate-hsm1.cfg", "managed-hsm:hsm1");
        pin(report);
        System.exit(report.end() == 0 ? 0 : 1);
    }

    /** Where nobody has to log in, a logout takes nothing away. */
    private static void logout(Report report, Token token) throws Exception {
        PrivateKey key = token.key("p256");
        String service = token.service;
        report.counted(service + ": signs after logout", service, "keys/sign", 1, () -> {
            ((AuthProvider) token.provider).logout();
            sign(token.provider, key);
        });
    }

    /** A token that asks for the client secret. */
    private static void pin(Report report) throws Exception {
        String service = "vault:kv1";
        Provider provider = Security.getProvider("SunPKCS11").configure("pin.cfg");
        char[] secret = System.getenv("AZURE_CLIENT_SECRET").toCharArray();
        KeyStore store = KeyStore.getInstance("PKCS11", provider);
        report.check("a wrong PIN is refused", () ->
            Report.refused(IOException.class, () -> store.load(null, "wrong".toCharArray())));
        report.check("the right PIN opens the KeyStore", () -> store.load(null, secret));
        report.check("signs when logged in", () ->
            sign(provider, (PrivateKey) store.getKey("p256", null)));
        report.check("after logout no key is there", () -> {
            PrivateKey key = (PrivateKey) store.getKey("p256", null);
            ((AuthProvider) provider).logout();
            Report.refused(Exception.class, () -> sign(provider, key));
        });
        report.check("signs after another login", () -> {
            store.load(null, secret);
            sign(provider, (PrivateKey) store.getKey("p256", null));
        });
    }

    private static void sign(Provider provider, PrivateKey key) throws Exception {
        Signature signature = Signature.getInstance("SHA256withECDSA", provider);
        signature.initSign(key);
        signature.update((byte) 1);
        signature.sign();
    }
}
