import java.io.InputStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** One line per check, "ok NAME" or "FAIL NAME reason", and the emulator's counters. */
final class Report {
    interface Check {
        void run() throws Exception;
    }

    private int failures;
    private int checks;

    void check(String name, Check check) {
        checks++;
        try {
            check.run();
            System.out.println("ok " + name);
        } catch (Exception | AssertionError fault) {
            failures++;
            StringBuilder reason = new StringBuilder();
            for (Throwable cause = fault; cause != null; cause = cause.getCause()) {
                reason.append(reason.isEmpty() ? "" : " <- ").append(cause);
            }
            StackTraceElement[] stack = fault.getStackTrace();
            String place = stack.length > 0 ? " at " + stack[0] : "";
            System.out.println("FAIL " + name + " " + reason + place);
        }
    }

    /** The check, which makes the service do {@code operation} so often, and nothing else. */
    void counted(String name, String service, String operation, int times, Check check) {
        check(name, () -> {
            int requests = counter(service, "requests");
            int operations = times == 0 ? 0 : counter(service, operation);
            check.run();
            requests = counter(service, "requests") - requests;
            operations = times == 0 ? 0 : counter(service, operation) - operations;
            that(requests == times, requests + " requests, not " + times);
            that(operations == times, operations + " of " + operation + ", not " + times);
        });
    }

    /** The check, for which the service is not asked at all. */
    void local(String name, String service, Check check) {
        counted(name, service, "", 0, check);
    }

    /** The number of failures, after a last line with the totals. */
    int end() {
        System.out.println((checks - failures) + " of " + checks + " checks");
        return failures;
    }

    static void that(boolean holds, String otherwise) {
        if (!holds) {
            throw new AssertionError(otherwise);
        }
    }

    /** Must throw an exception of this type. */
    static void refused(Class<? extends Throwable> type, Check check) throws Exception {
        try {
            check.run();
        } catch (Throwable fault) {
            if (type.isInstance(fault)) {
                return;
            }
            throw new AssertionError("refused as " + fault + ", not as " + type, fault);
        }
        throw new AssertionError("was not refused");
    }

    static int counter(String service, String operation) throws Exception {
        URI uri = URI.create(System.getenv("AKV_EMULATOR_CONTROL") + "/counters");
        String json;
        try (InputStream in = uri.toURL().openStream()) {
            json = new String(in.readAllBytes(), StandardCharsets.UTF_8);
        }
        Matcher counters = Pattern.compile("\"" + service + "\":\\{([^}]*)\\}").matcher(json);
        if (!counters.find()) {
            throw new IllegalStateException("no service " + service + " in " + json);
        }
        Matcher value = Pattern.compile("\"" + operation + "\":(\\d+)").matcher(counters.group(1));
        return value.find() ? Integer.parseInt(value.group(1)) : 0;
    }
}
