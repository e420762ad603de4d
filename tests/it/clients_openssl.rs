//! The openssl command with the pkcs11 engine (libengine-pkcs11-openssl).
