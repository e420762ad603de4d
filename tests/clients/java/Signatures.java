import java.security.MessageDigest;
import java.security.PrivateKey;
import java.security.PublicKey;
import java.security.Signature;
import java.security.SignatureException;
import java.security.spec.MGF1ParameterSpec;
import java.security.spec.PSSParameterSpec;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;

/** Signature, with every algorithm and key: made by the service, verified here, twice. */
final class Signatures {
    private static final String[] RSA = {
        "SHA1withRSA", "SHA224withRSA", "SHA256withRSA", "SHA384withRSA", "SHA512withRSA",
    };
    private static final String[] ECDSA = {
        "SHA1withECDSA", "SHA224withECDSA", "SHA256withECDSA", "SHA384withECDSA", "SHA512withECDSA",
        "SHA256withECDSAinP1363Format",
    };

    private final Report report;
    private final Token token;
    /** More than SunPKCS11 passes in one C_SignUpdate. */
    private final byte[] message = new byte[100_000];

    private Signatures(Report report, Token token) {
        this.report = report;
        this.token = token;
        new Random(1).nextBytes(message);
    }

    static void check(Report report, Token token) throws Exception {
        var signatures = new Signatures(report, token);
        for (String alias : Token.KEYS) {
            signatures.checkKey(alias);
        }
        signatures.checkThreads();
    }

    private void checkKey(String alias) throws Exception {
        PrivateKey key = token.key(alias);
        PublicKey open = token.store.getCertificate(alias).getPublicKey();
        if (Token.isRsa(alias)) {
            for (String algorithm : RSA) {
                round(alias, algorithm, null, key, open, "SunRsaSign", message);
            }
            for (String hash : List.of("SHA-256", "SHA-384", "SHA-512")) {
                int salt = MessageDigest.getInstance(hash).getDigestLength();
                PSSParameterSpec parameters = pss(hash, salt);
                round(alias, "RSASSA-PSS", parameters, key, open, "SunRsaSign", message);
            }
            round(alias, "NONEwithRSA", null, key, open, "SunJCE", "up to 245 bytes".getBytes());
            String another = name(alias, "RSASSA-PSS with another salt is refused");
            report.local(another, token.service, () ->
                Report.refused(Exception.class, () -> {
                    Signature signature = Signature.getInstance("RSASSA-PSS", token.provider);
                    signature.setParameter(pss("SHA-256", 20));
                    signature.initSign(key);
                    signature.update(message);
                    signature.sign();
                }));
        } else {
            for (String algorithm : ECDSA) {
                round(alias, algorithm, null, key, open, "SunEC", message);
            }
            for (int length : new int[] {20, 28, 32, 48, 64}) {
                byte[] digest = new byte[length];
                new Random(length).nextBytes(digest);
                round(alias, "NONEwithECDSA", null, key, open, "SunEC", digest);
            }
        }
    }

    /** One signature by the service; verified by Java's provider and by ours, without a request. */
    private void round(
        String alias, String algorithm, PSSParameterSpec parameters, PrivateKey key, PublicKey open,
        String javas, byte[] data) {
        String what = name(alias, algorithm)
            + (parameters == null ? "" : " " + parameters.getDigestAlgorithm())
            + (algorithm.startsWith("NONE") ? " " + data.length + " bytes" : "");
        byte[][] made = new byte[1][];
        report.counted(what + " signed", token.service, "keys/sign", 1, () -> {
            Signature signature = Signature.getInstance(algorithm, token.provider);
            if (parameters != null) {
                signature.setParameter(parameters);
            }
            signature.initSign(key);
            signature.update(data, 0, 1);
            signature.update(data, 1, data.length - 1);
            made[0] = signature.sign();
        });
        if (made[0] == null) {
            return;
        }
        byte[] other = data.clone();
        other[0] ^= 1;
        byte[] damaged = made[0].clone();
        damaged[damaged.length - 1] ^= 1;
        for (boolean ours : new boolean[] {false, true}) {
            String by = ours ? token.provider.getName() : javas;
            report.local(what + " verified by " + by, token.service, () -> {
                Signature signature = ours
                    ? Signature.getInstance(algorithm, token.provider)
                    : Signature.getInstance(algorithm, javas);
                if (parameters != null) {
                    signature.setParameter(parameters);
                }
                Report.that(verifies(signature, open, data, made[0]), "the signature");
                Report.that(!verifies(signature, open, other, made[0]), "other data");
                Report.that(!verifies(signature, open, data, damaged), "a damaged signature");
            });
        }
    }

    private static boolean verifies(Signature signature, PublicKey key, byte[] data, byte[] value)
        throws Exception {
        signature.initVerify(key);
        signature.update(data);
        try {
            return signature.verify(value);
        } catch (SignatureException malformed) {
            return false;
        }
    }

    private void checkThreads() throws Exception {
        int threads = 16;
        int each = 10;
        report.counted(token.service + ": " + threads + " threads sign", token.service, "keys/sign",
            threads * each, () -> {
                var tasks = new ArrayList<Callable<Void>>();
                for (int thread = 0; thread < threads; thread++) {
                    String alias = Token.KEYS.get(thread % Token.KEYS.size());
                    PrivateKey key = token.key(alias);
                    PublicKey open = token.store.getCertificate(alias).getPublicKey();
                    tasks.add(() -> {
                        String algorithm = Token.isRsa(alias) ? "SHA256withRSA" : "SHA256withECDSA";
                        for (int i = 0; i < each; i++) {
                            Signature signing = Signature.getInstance(algorithm, token.provider);
                            signing.initSign(key);
                            byte[] data = (Thread.currentThread() + " " + i).getBytes();
                            signing.update(data);
                            byte[] value = signing.sign();
                            Report.that(
                                verifies(Signature.getInstance(algorithm), open, data, value),
                                alias);
                        }
                        return null;
                    });
                }
                var pool = Executors.newFixedThreadPool(threads);
                try {
                    for (var result : pool.invokeAll(tasks)) {
                        result.get();
                    }
                } finally {
                    pool.shutdown();
                }
            });
    }

    private String name(String alias, String what) {
        return token.service + ": " + alias + " " + what;
    }

    private static PSSParameterSpec pss(String hash, int salt) {
        return new PSSParameterSpec(hash, "MGF1", new MGF1ParameterSpec(hash), salt, 1);
    }
}
