/* A host program: initialises the module, makes one call that is refused (so that there is
   something to log), forks, does it again in the child and in its own exit handler.
   host RESERVED-OR-EMPTY: prints what C_Initialize answered. */

#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>
#include "akv_pkcs11.h"

struct initialize_args {
    void *mutexes[4];
    unsigned long flags;
    void *reserved;
};

/* The beginning of CK_FUNCTION_LIST, as far as it is used here. */
struct functions {
    unsigned char version[2];
    unsigned long (*C_Initialize)(void *);
    unsigned long (*C_Finalize)(void *);
    void *up_to_close_session[10];
    unsigned long (*C_OpenSession)(unsigned long, unsigned long, void *, void *, unsigned long *);
    unsigned long (*C_CloseSession)(unsigned long);
};

static struct functions *p11;

static void at_the_very_end(void)
{
    p11->C_CloseSession(4242);
    p11->C_Finalize(NULL);
}

int main(int argc, char **argv)
{
    struct initialize_args args = {{NULL, NULL, NULL, NULL}, 2, NULL};
    void *list = NULL;
    unsigned long rv;
    pid_t child;
    int status = 1;

    if (argc != 2 || C_GetFunctionList(&list) != 0) return 2;
    p11 = list;
    if (argv[1][0] != '\0') args.reserved = argv[1];
    rv = p11->C_Initialize(&args);
    printf("0x%lx\n", rv);
    if (rv != 0) return 0;
    atexit(at_the_very_end);
    if (p11->C_CloseSession(4242) != 0xB3) return 3;
    fflush(stdout);
    child = fork();
    if (child == 0) {
        if (p11->C_CloseSession(4242) != 0xB3) _exit(4);
        exit(0);
    }
    if (waitpid(child, &status, 0) != child || status != 0) return 5;
    return 0;
}
