import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.Provider;
import java.security.Security;
import java.security.Signature;
import java.security.cert.X509Certificate;

/**
 * Signs a file with a key of the vault, and checks the signature with its certificate:
 * {@code java Sign.java p11.cfg ALIAS FILE SIGNATURE}.
 */
public final class Sign {
    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 4) {
            System.err.println("usage: java Sign.java P11.CFG ALIAS FILE SIGNATURE");
            System.exit(2);
        }
        String alias = arguments[1];
        byte[] data = Files.readAllBytes(Path.of(arguments[2]));

        // The PIN is asked for only where the token's configuration has a `login`.
        Provider provider = Security.getProvider("SunPKCS11").configure(arguments[0]);
        String pin = System.getenv("PIN");
        KeyStore store = KeyStore.getInstance("PKCS11", provider);
        store.load(null, pin == null ? null : pin.toCharArray());
        if (!store.isKeyEntry(alias)) {
            System.err.println("no key '" + alias + "' with a certificate on this token");
            System.exit(1);
        }

        // The key stays where it is: this object only names it.
        PrivateKey key = (PrivateKey) store.getKey(alias, null);
        X509Certificate certificate = (X509Certificate) store.getCertificate(alias);
        String algorithm = key.getAlgorithm().equals("RSA") ? "SHA256withRSA" : "SHA256withECDSA";
        Signature signing = Signature.getInstance(algorithm, provider);
        signing.initSign(key);
        signing.update(data);
        byte[] signature = signing.sign();
        Files.write(Path.of(arguments[3]), signature);

        Signature verifying = Signature.getInstance(algorithm);
        verifying.initVerify(certificate);
        verifying.update(data);
        boolean good = verifying.verify(signature);
        System.out.println(algorithm + " by '" + alias + "': " + (good ? "good" : "BAD"));
        System.exit(good ? 0 : 1);
    }
}
