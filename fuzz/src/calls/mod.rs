//! Whole sequences of C calls, with the lengths, NULLs and handles that no good client passes. The
//! service is a port where nobody listens: what needs it fails, and what does not is done here.

mod arguments;
pub mod functions;
mod seeds;

use std::{
    ffi::CString,
    panic,
    process::abort,
    sync::{LazyLock, Mutex, Once, PoisonError},
};

use akv_pkcs11::crypto::{Curve, PrivateKey};
use cryptoki_sys::*;

use self::{
    arguments::Arguments,
    functions::{ALL, Function, Role, Word},
};
use crate::{
    import::{CERTIFICATE, EC, RSA},
    memory::Memory,
    parameter::{Input, Kept},
};
pub use seeds::seeds;

/// What the module is told: two tokens whose service is not there.
pub const CONFIGURATION: &str = "akv-pkcs11:log.level = 'off'
[[token]]
endpoint = 'https://127.0.0.1:1'
label = 'vault'
service = 'vault'
tenant = '11111111-1111-1111-1111-111111111111'
authority = 'https://127.0.0.1:1'
credential = { type = 'client-secret', client_id = 'a', secret = 'b' }
scope = 'https://vault.azure.net/.default'
timeout = '100ms'
connect_timeout = '50ms'
find_timeout = '100ms'
failover_interval = '1h'
mechanisms = ['+*']
[[token]]
endpoint = 'https://127.0.0.1:2'
label = 'hsm'
service = 'managed-hsm'
tenant = '11111111-1111-1111-1111-111111111111'
authority = 'https://127.0.0.1:1'
credential = { type = 'client-secret', client_id = 'a', secret = 'b' }
scope = 'https://managedhsm.azure.net/.default'
timeout = '100ms'
connect_timeout = '50ms'
find_timeout = '100ms'
keys = ['absent']
";

/// With AKV_FUZZ_SHOW set, each call of an input is printed with its CK_RV.
static SHOWN: LazyLock<bool> = LazyLock::new(|| std::env::var_os("AKV_FUZZ_SHOW").is_some());

/// Calls of one input: enough for a session, keys and an operation with each.
const MOST_CALLS: usize = 48;

/// What the caller knows.
#[derive(Default)]
pub struct World {
    /// Whether C_Initialize was the last of it and C_Finalize.
    initialised: bool,
    /// Sessions that are open.
    sessions: Vec<CK_SESSION_HANDLE>,
    /// Objects that were made or found, and may be gone again.
    objects: Vec<CK_OBJECT_HANDLE>,
    /// What calls have given out, to be passed on to others.
    outputs: Vec<Vec<u8>>,
    /// IV and tag of the last message.
    kept: Kept,
}

/// The input is calls: the number of a function, then its arguments, one after the other.
pub fn run(input: &[u8]) {
    // One module for the process, as for every caller.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    static BEGIN: Once = Once::new();
    BEGIN.call_once(|| initialise(&mut World::default()));
    let mut input = Input::new(input);
    let mut world = World { initialised: true, ..World::default() };
    // The first byte may leave out what a good caller begins with.
    let choice = input.byte();
    if choice & 1 != 0 {
        call(&mut world, Function::named("C_Finalize").1, &mut Input::new(&[]));
    }
    for slot in 0..2 {
        if choice & 2 == 0 && world.initialised {
            call(&mut world, Function::named("C_OpenSession").1, &mut Input::new(&[slot, 6]));
        }
    }
    for _ in 0..MOST_CALLS {
        if input.is_empty() {
            break;
        }
        let function = &ALL[usize::from(input.byte()) % ALL.len()];
        call(&mut world, function, &mut input);
    }
    end(&mut world);
}

/// C_Initialize with our configuration; the first time, panics are made to end the process.
fn initialise(world: &mut World) {
    call(world, Function::named("C_Initialize").1, &mut Input::new(&[]));
    assert!(world.initialised);
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        // The module's own hook, made by its first C_Initialize, logs what its boundary turns into
        // CKR_GENERAL_ERROR. Here that is what is looked for.
        let _ = panic::take_hook();
        panic::set_hook(Box::new(|panic| {
            eprintln!("{panic}\n{}", std::backtrace::Backtrace::force_capture());
            if cfg!(feature = "libfuzzer") {
                abort();
            }
        }));
    });
}

/// Session objects and operations end with their sessions; the module lives on, unless the input
/// has finalised it.
fn end(world: &mut World) {
    for slot in 0..2 {
        call(world, Function::named("C_CloseAllSessions").1, &mut Input::new(&[slot]));
    }
    let (session, object) = (world.sessions.clone(), world.objects.clone());
    assert!(session.is_empty(), "every session was closed");
    if let Some(object) = object.last()
        && world.initialised
    {
        // A session of its own sees none of the session objects that were made.
        call(world, Function::named("C_OpenSession").1, &mut Input::new(&[0, 6]));
        let size = Function::named("C_GetObjectSize").1;
        let mut memory = Memory::default();
        let room = memory.room(size_of::<CK_ULONG>());
        let words = [
            Word::Number(world.sessions[0]),
            Word::Number(*object),
            Word::Pointer(memory.pointer(room).cast()),
        ];
        // SAFETY: a session, an object's handle and room for a number.
        let rv = unsafe { size.call(&words) };
        assert_eq!(rv, CKR_OBJECT_HANDLE_INVALID, "a session object outlived its session");
        call(world, Function::named("C_CloseAllSessions").1, &mut Input::new(&[0]));
    }
    if world.initialised {
        return;
    }
    initialise(world);
}

/// One call, and what has to hold after it.
fn call(world: &mut World, function: &Function, input: &mut Input<'_>) {
    let mut memory = Memory::default();
    let mut arguments = Arguments::decode(world, function, input, &mut memory);
    let name = function.name;
    if *SHOWN {
        eprintln!("{name} {:x?}", arguments.words);
    }
    // SAFETY: `decode` keeps a C caller's promises.
    let rv = unsafe { function.call(&arguments.words) };
    if *SHOWN {
        eprintln!("    {rv:#x}");
    }
    memory.check(name);
    assert!(rv != CKR_GENERAL_ERROR, "{name}: CKR_GENERAL_ERROR, which nothing here can cause");
    let needs_module = function.needs_module();
    if !world.initialised && needs_module {
        assert_eq!(rv, CKR_CRYPTOKI_NOT_INITIALIZED, "{name} without C_Initialize");
        return;
    }
    if let (Some(Role::Session), Some(Word::Number(session))) =
        (function.roles.first(), arguments.words.first())
        && !world.sessions.contains(session)
    {
        assert_eq!(rv, CKR_SESSION_HANDLE_INVALID, "{name} with a session that is not open");
        return;
    }
    assert!(function.supported || rv != CKR_OK, "{name} is not supported and succeeds");
    assert!(function.supported || rv == CKR_FUNCTION_NOT_SUPPORTED || rv == CKR_SLOT_ID_INVALID);
    arguments.check(name, rv, &memory);
    arguments.learn(world, rv, &memory);
    learn(world, name, rv, &arguments);
}

impl Function {
    /// Every function but those that a caller finds the others with. C_Finalize looks at its
    /// argument first.
    fn needs_module(&self) -> bool {
        !matches!(
            self.name,
            "C_Initialize"
                | "C_Finalize"
                | "C_GetFunctionList"
                | "C_GetInterfaceList"
                | "C_GetInterface"
        )
    }
}

/// What a call has changed.
fn learn(world: &mut World, name: &str, rv: CK_RV, arguments: &Arguments) {
    match (name, rv) {
        ("C_Initialize", CKR_OK) => {
            assert!(!world.initialised, "initialised twice");
            world.initialised = true;
        }
        ("C_Finalize", CKR_OK) => {
            assert!(world.initialised, "finalised twice");
            *world = World::default();
        }
        ("C_OpenSession", CKR_OK) => {
            world.sessions.push(arguments.made.first().copied().unwrap_or(0));
        }
        ("C_CloseSession", _) => {
            if let Some(Word::Number(closed)) = arguments.words.first()
                && rv == CKR_OK
            {
                world.sessions.retain(|session| session != closed);
            }
        }
        ("C_CloseAllSessions", CKR_OK) => {
            // Whose they were is known to the module alone: ask it.
            let (_, info) = Function::named("C_GetSessionInfo");
            world.sessions.retain(|session| {
                let mut memory = Memory::default();
                let room = memory.room(size_of::<CK_SESSION_INFO>());
                let place = Word::Pointer(memory.pointer(room).cast());
                // SAFETY: a session's handle, and room for what is asked.
                let rv = unsafe { info.call(&[Word::Number(*session), place]) };
                assert!(matches!(rv, CKR_OK | CKR_SESSION_HANDLE_INVALID), "{rv:#x}");
                rv == CKR_OK
            });
        }
        _ => {
            if rv == CKR_OK {
                world.objects.extend(&arguments.made);
            }
        }
    }
}

/// Values of attributes that chance does not find.
pub fn samples() -> &'static [Vec<u8>] {
    static SAMPLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let rsa = PrivateKey::from_pkcs8(RSA).expect("the sample");
        let ec = PrivateKey::from_pkcs8(EC).expect("the sample");
        let integers = rsa.rsa_components().expect("an RSA key");
        let mut all = vec![
            integers.n,
            integers.e,
            integers.d.to_vec(),
            integers.p.to_vec(),
            integers.q.to_vec(),
            integers.dp.to_vec(),
            integers.dq.to_vec(),
            integers.qi.to_vec(),
            ec.public().ec_point_der().expect("a point"),
            ec.ec_secret().expect("an EC key").to_vec(),
            CERTIFICATE.to_vec(),
            vec![7; 16],
            vec![7; 32],
        ];
        all.extend(Curve::ALL.map(Curve::params_der));
        all
    });
    &SAMPLES
}

/// `pReserved` of C_Initialize.
fn reserved() -> CString {
    CString::new(CONFIGURATION).expect("no NUL")
}
