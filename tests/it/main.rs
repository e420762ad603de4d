//! The module as its users load it: the shared object, under the emulator's services, in real
//! clients and in host programs of our own.

mod abi;
mod arguments;
mod attributes;
mod breaking;
mod calls;
mod clients_java;
mod clients_nginx;
mod clients_openssl;
mod clients_pkcs11_tool;
mod clients_quickstart;
mod decryption;
mod digests;
mod find;
mod fork;
mod generate;
mod host;
mod hosts;
mod identity;
mod init;
mod life;
mod login;
mod matrix;
mod messages;
mod objects;
mod parallel;
mod recover;
mod requests;
mod secrets;
mod service;
mod session;
mod signing;
mod sizes;
mod support;
mod symmetric;
mod token;
