import java.security.Key;
import java.security.PrivateKey;
import java.security.PublicKey;
import java.util.Arrays;
import javax.crypto.BadPaddingException;
import javax.crypto.Cipher;
import javax.crypto.SecretKey;
import javax.crypto.spec.SecretKeySpec;

/** Cipher RSA/ECB/PKCS1Padding: encrypted and wrapped here, decrypted by the service. */
final class Ciphers {
    private static final String PKCS1 = "RSA/ECB/PKCS1Padding";

    static void check(Report report, Token token) throws Exception {
        for (String alias : Token.KEYS) {
            if (!Token.isRsa(alias)) {
                continue;
            }
            String what = token.service + ": " + alias + " " + PKCS1 + " ";
            PrivateKey key = token.key(alias);
            PublicKey open = token.store.getCertificate(alias).getPublicKey();
            int longest = Integer.parseInt(alias.substring(3)) / 8 - 11;
            for (int length : new int[] {0, 1, longest}) {
                byte[] plain = new byte[length];
                Arrays.fill(plain, (byte) 7);
                byte[][] made = new byte[2][];
                String bytes = what + length + " bytes ";
                report.local(bytes + "encrypted", token.service, () -> {
                    Cipher javas = Cipher.getInstance(PKCS1, "SunJCE");
                    Cipher ours = Cipher.getInstance(PKCS1, token.provider);
                    made[0] = crypt(javas, Cipher.ENCRYPT_MODE, open, plain);
                    made[1] = crypt(ours, Cipher.ENCRYPT_MODE, open, plain);
                });
                report.counted(bytes + "decrypted", token.service, "keys/decrypt", 2, () -> {
                    for (byte[] encrypted : made) {
                        Cipher cipher = Cipher.getInstance(PKCS1, token.provider);
                        byte[] back = crypt(cipher, Cipher.DECRYPT_MODE, key, encrypted);
                        Report.that(Arrays.equals(back, plain), "another plaintext");
                    }
                });
            }
            wrap(report, token, what, key, open);
            report.check(what + "a damaged ciphertext is refused", () -> {
                Cipher cipher = Cipher.getInstance(PKCS1, token.provider);
                byte[] damaged = new byte[longest + 11];
                damaged[longest] = 1;
                Report.refused(BadPaddingException.class,
                    () -> crypt(cipher, Cipher.DECRYPT_MODE, key, damaged));
            });
        }
    }

    /** An AES key that Java has becomes one of the session, and is wrapped by C_WrapKey. */
    private static void wrap(
        Report report, Token token, String what, PrivateKey key, PublicKey open) throws Exception {
        byte[] bytes = new byte[32];
        Arrays.fill(bytes, (byte) 5);
        SecretKey aes = new SecretKeySpec(bytes, "AES");
        byte[][] made = new byte[2][];
        report.local(what + "an AES key is wrapped", token.service, () -> {
            Cipher[] ciphers = {
                Cipher.getInstance(PKCS1, "SunJCE"), Cipher.getInstance(PKCS1, token.provider)};
            for (int i = 0; i < ciphers.length; i++) {
                ciphers[i].init(Cipher.WRAP_MODE, open);
                made[i] = ciphers[i].wrap(aes);
            }
        });
        report.counted(what + "and unwrapped", token.service, "keys/decrypt", 2, () -> {
            for (byte[] wrapped : made) {
                Cipher cipher = Cipher.getInstance(PKCS1, token.provider);
                cipher.init(Cipher.UNWRAP_MODE, key);
                Key back = cipher.unwrap(wrapped, "AES", Cipher.SECRET_KEY);
                Report.that(Arrays.equals(back.getEncoded(), bytes), "another key");
            }
        });
    }

    private static byte[] crypt(Cipher cipher, int mode, Key key, byte[] data) throws Exception {
        cipher.init(mode, key);
        return cipher.doFinal(data);
    }
}
