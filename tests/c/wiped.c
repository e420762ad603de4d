/* A host that gives secrets to the module, takes some from it, and then reads all memory of the
   process: nothing of them may be left, as they are, backwards (numbers in memory) or in base64url
   (the service's JSON).
   wiped CONFIGURATION-FILE PIN-FILE: slot 0 is a vault with a key "rsa" and a secret "kept", to
   log in to with that PIN; slot 1 is an HSM with keys "rsa" and "aes". What is left goes to
   standard output, a line each. */

#include <stdint.h>
#include <sys/random.h>
#include "host.h"

enum { Login = 18, Logout = 19, CreateObject = 20, GetAttributeValue = 24, EncryptUpdate = 31,
       EncryptFinal = 32, GenerateKey = 58, WrapKey = 60, UnwrapKey = 61 };

enum { PIN_INCORRECT = 0xA0, USER = 1, DATA = 0 };

enum { RSA_PKCS_KEY_PAIR_GEN = 0, RSA_PKCS = 1, RSA_PKCS_OAEP = 9, SHA_1 = 0x220,
       AES_KEY_GEN = 0x1080, AES_CBC_PAD = 0x1085 };

enum { CLASS = 0, TOKEN = 1, LABEL = 3, VALUE = 0x11, KEY_TYPE = 0x100, SENSITIVE = 0x103,
       PRIVATE_EXPONENT = 0x123, PRIME_1 = 0x124, PRIME_2 = 0x125, EXPONENT_1 = 0x126,
       EXPONENT_2 = 0x127, COEFFICIENT = 0x128, MODULUS_BITS = 0x121, VALUE_LEN = 0x161,
       EXTRACTABLE = 0x162, EC_PARAMS = 0x180 };

enum { EC = 3, AES = 0x1F };

static const unsigned char P_256[] = {6, 8, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 3, 1, 7};

/* A secret is kept with this in each byte, so that what is found in memory is not this copy. */
enum { MASK = 0x5C, MOST = 512, PIECE = 12 };

struct secret {
    const char *name;
    unsigned long length;
    unsigned char masked[MOST];
};

static struct secret secrets[40];
static int kept;

/* Takes the bytes over: they are wiped. */
static struct secret *keep(const char *name, unsigned char *bytes, unsigned long length)
{
    struct secret *secret = &secrets[kept++];

    if (kept == 40 || length > MOST) fail("%s does not fit", name);
    secret->name = name;
    secret->length = length;
    for (unsigned long i = 0; i < length; i++) secret->masked[i] = bytes[i] ^ MASK;
    explicit_bzero(bytes, length);
    return secret;
}

static struct secret *make(const char *name, unsigned long length)
{
    unsigned char bytes[MOST];

    if (getrandom(bytes, length, 0) != (ssize_t)length) fail("getrandom");
    bytes[0] &= 0x7F; /* Below the order of P-256, for a secret that is a private key. */
    return keep(name, bytes, length);
}

static void reveal(const struct secret *secret, unsigned char *bytes)
{
    for (unsigned long i = 0; i < secret->length; i++) bytes[i] = secret->masked[i] ^ MASK;
}

/* The form of a secret that is looked for, masked. */
struct form {
    const char *name;
    unsigned long length;
    unsigned char masked[MOST * 4 / 3 + 4];
};

static void forms_of(const struct secret *secret, struct form form[3])
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    unsigned long length = secret->length;

    form[0].name = "as it is";
    form[1].name = "backwards";
    form[2].name = "in base64url";
    form[0].length = form[1].length = length;
    form[2].length = 0;
    memcpy(form[0].masked, secret->masked, length);
    for (unsigned long i = 0; i < length; i++) form[1].masked[i] = secret->masked[length - 1 - i];
    for (unsigned long i = 0; i + 3 <= length; i += 3) {
        uint32_t three = 0;

        for (int j = 0; j < 3; j++) three = three << 8 | (unsigned char)(secret->masked[i + j] ^ MASK);
        for (int j = 3; j >= 0; j--) {
            form[2].masked[form[2].length++] = digits[three >> 6 * j & 63] ^ MASK;
        }
    }
}

/* Whether a piece of it is in this memory. */
static int found_in(const struct form *form, const unsigned char *memory, unsigned long length)
{
    unsigned char starts[256] = {0};

    for (unsigned long from = 0; from + PIECE <= form->length; from += 4) {
        starts[form->masked[from] ^ MASK] = 1;
    }
    for (unsigned long at = 0; at + PIECE <= length; at++) {
        if (!starts[memory[at]]) continue;
        for (unsigned long from = 0; from + PIECE <= form->length; from += 4) {
            unsigned long i = 0;

            while (i < PIECE && (memory[at + i] ^ MASK) == form->masked[from + i]) i++;
            if (i == PIECE) return 1;
        }
    }
    return 0;
}

/* Reads all writable memory of the process. How many forms were found; each is told. */
static int look(const struct secret *secret, const char *when, int told)
{
    static struct form form[3];
    char line[400];
    int found = 0;
    FILE *maps = fopen("/proc/self/maps", "r");

    if (maps == NULL) fail("/proc/self/maps cannot be read");
    forms_of(secret, form);
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long start, end;
        char rights[5], *path = strpbrk(line, "/[");

        if (sscanf(line, "%lx-%lx %4s", &start, &end, rights) != 3) fail("a line of maps: %s", line);
        if (rights[0] != 'r' || rights[1] != 'w') continue;
        for (int i = 0; i < 3; i++) {
            if (!found_in(&form[i], (const unsigned char *)start, end - start)) continue;
            found++;
            if (told) {
                printf("%s is left %s, %s, in %s\n", secret->name, when, form[i].name,
                       path == NULL ? "memory without a name\n" : path);
            }
        }
    }
    fclose(maps);
    return found;
}

static void gone(const struct secret *secret, const char *when) { look(secret, when, 1); }

static struct list *list;

/* CK_RSA_PKCS_OAEP_PARAMS */
static struct { unsigned long hash, mgf, source; void *label; unsigned long length; } sha_1 =
    {SHA_1, 1, 1, NULL, 0};

static struct secret *attribute(unsigned long session, unsigned long object, unsigned long type,
                                const char *name)
{
    unsigned char value[MOST];
    struct attribute attribute = {type, value, sizeof value};

    expect(name, list->call[GetAttributeValue](session, object, &attribute, 1UL), OK);
    return keep(name, value, attribute.length);
}

static void destroy(unsigned long session, unsigned long object)
{
    expect("C_DestroyObject", list->call[DestroyObject](session, object), OK);
}

/* Encrypts a secret with this key; the ciphertext's length. */
static unsigned long encrypt(unsigned long session, struct mechanism *mechanism, unsigned long key,
                             const struct secret *secret, unsigned char *ciphertext)
{
    unsigned char plaintext[MOST];
    unsigned long length = MOST;

    reveal(secret, plaintext);
    expect("C_EncryptInit", list->call[EncryptInit](session, mechanism, key), OK);
    expect("C_Encrypt",
           list->call[Encrypt](session, plaintext, secret->length, ciphertext, &length), OK);
    explicit_bzero(plaintext, sizeof plaintext);
    gone(secret, "after C_Encrypt");
    return length;
}

static void decrypt(unsigned long session, struct mechanism *mechanism, unsigned long key,
                    const struct secret *secret, unsigned char *ciphertext, unsigned long length)
{
    unsigned char plaintext[MOST];
    unsigned long got = sizeof plaintext;

    expect("C_DecryptInit", list->call[DecryptInit](session, mechanism, key), OK);
    expect("C_Decrypt", list->call[Decrypt](session, ciphertext, length, plaintext, &got), OK);
    if (got != secret->length) fail("a plaintext of %lu bytes", got);
    for (unsigned long i = 0; i < got; i++) {
        if ((plaintext[i] ^ MASK) != secret->masked[i]) fail("another plaintext");
    }
    explicit_bzero(plaintext, sizeof plaintext);
    gone(secret, "after C_Decrypt");
}

static void encryption(unsigned long session, const char *label, unsigned long class,
                       unsigned long private_class, struct mechanism mechanism, const char *name)
{
    unsigned char ciphertext[MOST];
    const struct secret *secret = make(name, 48);
    unsigned long key = find(list, session, class, label);
    unsigned long length = encrypt(session, &mechanism, key, secret, ciphertext);

    if (private_class != class) key = find(list, session, private_class, label);
    decrypt(session, &mechanism, key, secret, ciphertext, length);
}

/* Keys that the client brings, on the token or for the session. */
static void imported(unsigned long session, unsigned long class, unsigned long kind,
                     unsigned char on_token, const char *label, const char *name)
{
    unsigned char value[32], no = 0, yes = 1, data[32] = {1}, out[512], iv[16] = {0};
    const struct secret *secret = make(name, sizeof value);
    struct attribute template[] = {
        {CLASS, &class, sizeof class}, {KEY_TYPE, &kind, sizeof kind}, {TOKEN, &on_token, 1},
        {SENSITIVE, &yes, 1}, {EXTRACTABLE, &no, 1}, {LABEL, (void *)label, strlen(label)},
        {VALUE, value, sizeof value}, {EC_PARAMS, (void *)P_256, sizeof P_256},
    };
    unsigned long object, length = sizeof out, count = kind == EC ? 8 : 7;

    reveal(secret, value);
    expect(name, list->call[CreateObject](session, template, count, &object), OK);
    explicit_bzero(value, sizeof value);
    if (kind == EC) {
        expect(name, sign(list, session, ECDSA, object, data, out, &length), OK);
    } else {
        struct mechanism mechanism = {AES_CBC, iv, sizeof iv};

        expect(name, list->call[EncryptInit](session, &mechanism, object), OK);
        expect(name, list->call[Encrypt](session, data, 32UL, out, &length), OK);
    }
    if (!on_token) {
        if (look(secret, "", 0) == 0) fail("%s is nowhere while it is used", name);
        destroy(session, object);
    }
    gone(secret, on_token ? "after its import" : "after C_DestroyObject");
}

static const unsigned long private_numbers[] = {
    PRIVATE_EXPONENT, PRIME_1, PRIME_2, EXPONENT_1, EXPONENT_2, COEFFICIENT,
};

/* Keys that the module makes, and shows because they may be seen. */
static void generated(unsigned long session)
{
    unsigned char no = 0, yes = 1, signature[512], data[32] = {1};
    unsigned long bits = 2048, public, private, length;
    struct attribute open[] = {{TOKEN, &no, 1}, {SENSITIVE, &no, 1}, {EXTRACTABLE, &yes, 1}};
    struct attribute rsa[] = {{TOKEN, &no, 1}, {MODULUS_BITS, &bits, sizeof bits}};
    struct attribute ec[] = {{TOKEN, &no, 1}, {EC_PARAMS, (void *)P_256, sizeof P_256}};
    struct mechanism rsa_gen = {RSA_PKCS_KEY_PAIR_GEN, NULL, 0};
    struct mechanism ec_gen = {EC_KEY_PAIR_GEN, NULL, 0};
    struct secret *numbers[6], *secret;

    expect("an RSA pair", list->call[GenerateKeyPair](session, &rsa_gen, rsa, 2UL, open, 3UL, &public,
                                                      &private), OK);
    for (int i = 0; i < 6; i++) {
        numbers[i] = attribute(session, private, private_numbers[i], "a number of an RSA key");
    }
    expect("a signature", sign(list, session, SHA256_RSA_PKCS, private, data, signature, &length), OK);
    destroy(session, private);
    for (int i = 0; i < 6; i++) gone(numbers[i], "after C_DestroyObject");

    expect("an EC pair", list->call[GenerateKeyPair](session, &ec_gen, ec, 2UL, open, 3UL, &public,
                                                     &private), OK);
    secret = attribute(session, private, VALUE, "a generated EC key");
    expect("a signature", sign(list, session, ECDSA, private, data, signature, &length), OK);
    destroy(session, private);
    gone(secret, "after C_DestroyObject");
}

/* An AES key that goes from session to session under a key of the service. */
static void wrapped(unsigned long session)
{
    unsigned char no = 0, yes = 1, iv[16] = {0}, out[512], data[32] = {1};
    unsigned long size = 32, class = SECRET_KEY, kind = AES, key, length = sizeof out;
    struct attribute template[] = {
        {TOKEN, &no, 1}, {SENSITIVE, &no, 1}, {EXTRACTABLE, &yes, 1},
        {VALUE_LEN, &size, sizeof size},
    };
    struct attribute unwrapped[] = {
        {TOKEN, &no, 1}, {SENSITIVE, &no, 1}, {EXTRACTABLE, &yes, 1},
        {CLASS, &class, sizeof class}, {KEY_TYPE, &kind, sizeof kind},
    };
    struct mechanism oaep = {RSA_PKCS_OAEP, &sha_1, sizeof sha_1};
    struct mechanism gen = {AES_KEY_GEN, NULL, 0}, cbc = {AES_CBC_PAD, iv, sizeof iv};
    unsigned long public = find(list, session, PUBLIC_KEY, "rsa");
    unsigned long private = find(list, session, PRIVATE_KEY, "rsa");
    struct secret *secret;

    expect("an AES key", list->call[GenerateKey](session, &gen, template, 4UL, &key), OK);
    secret = attribute(session, key, VALUE, "a generated AES key");
    expect("C_WrapKey", list->call[WrapKey](session, &oaep, public, key, out, &length), OK);
    destroy(session, key);
    gone(secret, "after C_WrapKey and C_DestroyObject");
    expect("C_UnwrapKey", list->call[UnwrapKey](session, &oaep, private, out, length, unwrapped, 5UL,
                                                &key), OK);
    expect("an encryption", list->call[EncryptInit](session, &cbc, key), OK);
    length = sizeof out;
    expect("an encryption", list->call[EncryptUpdate](session, data, 32UL, out, &length), OK);
    length = sizeof out;
    expect("an encryption", list->call[EncryptFinal](session, out, &length), OK);
    destroy(session, key);
    gone(secret, "after C_UnwrapKey and C_DestroyObject");
}

static unsigned long whole(const char *path, char *text, unsigned long room)
{
    FILE *file = fopen(path, "r");
    unsigned long length;

    if (file == NULL) fail("%s cannot be read", path);
    setvbuf(file, NULL, _IONBF, 0);
    length = fread(text, 1, room - 1, file);
    text[length] = 0;
    fclose(file);
    return length;
}

int main(int count, char **words)
{
    static char configuration[8192];
    char pin[200], *secret;
    unsigned char iv[16] = {7};
    unsigned long vault, hsm, length, object;
    struct mechanism oaep = {RSA_PKCS_OAEP, &sha_1, sizeof sha_1}, pkcs1 = {RSA_PKCS, NULL, 0};
    struct mechanism cbc = {AES_CBC_PAD, iv, sizeof iv};
    struct secret *right, *wrong, *client_secret, *data;

    if (count != 4) fail("wiped MODULE CONFIGURATION-FILE PIN-FILE");
    list = load(words[1], RTLD_NOW, NULL);
    length = whole(words[2], configuration, sizeof configuration);
    expect("C_Initialize", initialize(list, configuration), OK);
    secret = strstr(configuration, "secret = '") + strlen("secret = '");
    client_secret = keep("the client secret", (unsigned char *)secret, strcspn(secret, "'"));
    explicit_bzero(configuration, length);
    vault = open_session(list, 0);
    hsm = open_session(list, 1);

    length = whole(words[3], pin, sizeof pin);
    memcpy(pin + length, "twenty-seven wrong letters!", 27);
    expect("C_Login", list->call[Login](vault, (unsigned long)USER, pin, length + 27), PIN_INCORRECT);
    wrong = keep("a wrong PIN", (unsigned char *)pin + length, 27);
    expect("C_Login", list->call[Login](vault, (unsigned long)USER, pin, length), OK);
    secret = strchr(pin, ':') + 1;
    right = keep("the PIN", (unsigned char *)secret, length - (secret - pin));
    if (look(right, "", 0) == 0) fail("the PIN is nowhere while it is used");
    gone(wrong, "after C_Login");

    for (int round = 0; round < 2; round++) {
        unsigned long session = round == 0 ? vault : hsm;

        encryption(session, "rsa", PUBLIC_KEY, PRIVATE_KEY, oaep, "a plaintext of OAEP");
        encryption(session, "rsa", PUBLIC_KEY, PRIVATE_KEY, pkcs1, "a plaintext of PKCS#1");
        imported(session, PRIVATE_KEY, EC, 0, "here", "an EC key of the session");
        imported(session, PRIVATE_KEY, EC, 1, "there", "an EC key that the service got");
        generated(session);
    }
    imported(hsm, SECRET_KEY, AES, 0, "here", "an AES key of the session");
    wrapped(hsm);
    encryption(hsm, "aes", SECRET_KEY, SECRET_KEY, cbc, "a plaintext of AES-CBC");
    object = find(list, vault, DATA, "kept");
    data = attribute(vault, object, VALUE, "the value of a secret");
    gone(data, "after C_GetAttributeValue");

    expect("C_Logout", list->call[Logout](vault), OK);
    gone(right, "after C_Logout");
    expect("C_Finalize", list->call[Finalize](NULL), OK);
    gone(client_secret, "after C_Finalize");
    for (int i = 0; i < kept; i++) gone(&secrets[i], "at the end");
    return 0;
}
