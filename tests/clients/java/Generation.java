import java.math.BigInteger;
import java.security.KeyFactory;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.MessageDigest;
import java.security.Provider;
import java.security.PublicKey;
import java.security.SecureRandom;
import java.security.Security;
import java.security.Signature;
import java.security.interfaces.ECPublicKey;
import java.security.interfaces.RSAPublicKey;
import java.security.spec.ECGenParameterSpec;
import java.security.spec.ECPublicKeySpec;
import java.security.spec.RSAPublicKeySpec;
import java.security.spec.X509EncodedKeySpec;
import java.util.Arrays;

/** KeyPairGenerator, KeyFactory, SecureRandom, MessageDigest of the whole provider. */
final class Generation {
    private static final String[] KINDS = {"RSA 2048", "EC secp256r1", "EC secp384r1"};

    /** {@code session} makes pairs in this process, {@code generate} at the service. */
    static void check(Report report, String session, String generate, String service) {
        Provider here = Security.getProvider("SunPKCS11").configure(session);
        Provider there = Security.getProvider("SunPKCS11").configure(generate);
        for (String kind : KINDS) {
            String what = service + ": " + kind + " ";
            KeyPair[] pair = new KeyPair[2];
            report.local(what + "session pair made", service, () -> pair[0] = pair(kind, here));
            report.local(what + "session pair signs", service, () -> sign(pair[0], here));
            // One look whether the name is taken, one request that makes the key.
            report.check(what + "token pair made", () -> {
                int before = Report.counter(service, "keys/create");
                pair[1] = pair(kind, there);
                int made = Report.counter(service, "keys/create") - before;
                Report.that(made == 1, made + " keys made");
            });
            report.counted(what + "token pair signs", service, "keys/sign", 1,
                () -> sign(pair[1], there));
            report.check(what + "KeyFactory", () -> keyFactory(pair[1].getPublic(), here));
        }
        report.check(service + ": SecureRandom", () -> {
            SecureRandom random = SecureRandom.getInstance("PKCS11", here);
            random.setSeed(new byte[] {1, 2, 3});
            byte[][] drawn = {new byte[16], new byte[16], new byte[1000]};
            for (byte[] bytes : drawn) {
                random.nextBytes(bytes);
                Report.that(!Arrays.equals(bytes, new byte[bytes.length]), "zeros");
            }
            Report.that(!Arrays.equals(drawn[0], drawn[1]), "twice the same");
        });
        for (String hash : new String[] {"SHA-1", "SHA-224", "SHA-256", "SHA-384", "SHA-512"}) {
            report.local(service + ": MessageDigest " + hash, service, () -> {
                byte[] data = new byte[1_000_000];
                MessageDigest ours = MessageDigest.getInstance(hash, here);
                ours.update(data, 0, 3);
                MessageDigest copied = null;
                try {
                    copied = (MessageDigest) ours.clone();
                } catch (CloneNotSupportedException without) {
                    // Needs C_GetOperationState, which nothing else asks for.
                }
                ours.update(data, 3, data.length - 3);
                byte[] javas = MessageDigest.getInstance(hash, "SUN").digest(data);
                Report.that(Arrays.equals(ours.digest(), javas), "another digest");
                Report.that(Arrays.equals(ours.digest(data), javas), "another digest, again");
                if (copied != null) {
                    copied.update(data, 3, data.length - 3);
                    Report.that(Arrays.equals(copied.digest(), javas), "another digest, copied");
                }
            });
        }
    }

    private static KeyPair pair(String kind, Provider provider) throws Exception {
        String[] words = kind.split(" ");
        KeyPairGenerator generator = KeyPairGenerator.getInstance(words[0], provider);
        if (words[0].equals("RSA")) {
            generator.initialize(Integer.parseInt(words[1]));
        } else {
            generator.initialize(new ECGenParameterSpec(words[1]));
        }
        return generator.generateKeyPair();
    }

    private static void sign(KeyPair pair, Provider provider) throws Exception {
        boolean rsa = pair.getPublic().getAlgorithm().equals("RSA");
        String algorithm = rsa ? "SHA256withRSA" : "SHA256withECDSA";
        Signature signature = Signature.getInstance(algorithm, provider);
        signature.initSign(pair.getPrivate());
        signature.update((byte) 1);
        byte[] value = signature.sign();
        PublicKey open = KeyFactory.getInstance(pair.getPublic().getAlgorithm())
            .generatePublic(new X509EncodedKeySpec(pair.getPublic().getEncoded()));
        Signature ours = Signature.getInstance(algorithm, provider);
        ours.initVerify(pair.getPublic());
        Signature javas = Signature.getInstance(algorithm, rsa ? "SunRsaSign" : "SunEC");
        javas.initVerify(open);
        for (Signature verifying : new Signature[] {ours, javas}) {
            verifying.update((byte) 1);
            Report.that(verifying.verify(value), "not verified by " + verifying.getProvider());
        }
    }

    private static void keyFactory(PublicKey open, Provider provider) throws Exception {
        KeyFactory ours = KeyFactory.getInstance(open.getAlgorithm(), provider);
        PublicKey encoded = ours.generatePublic(new X509EncodedKeySpec(open.getEncoded()));
        Report.that(encoded.equals(open), "another key");
        if (open instanceof RSAPublicKey rsa) {
            RSAPublicKeySpec spec = ours.getKeySpec(encoded, RSAPublicKeySpec.class);
            Report.that(spec.getModulus().equals(rsa.getModulus()), "another modulus");
            BigInteger exponent = spec.getPublicExponent();
            Report.that(exponent.equals(rsa.getPublicExponent()), "another exponent");
            Report.that(ours.generatePublic(spec).equals(open), "another key from its numbers");
        } else {
            ECPublicKeySpec spec = ours.getKeySpec(encoded, ECPublicKeySpec.class);
            Report.that(spec.getW().equals(((ECPublicKey) open).getW()), "another point");
            Report.that(ours.generatePublic(spec).equals(open), "another key from its point");
        }
        Report.that(ours.translateKey(encoded).equals(open), "another key, translated");
    }
}
