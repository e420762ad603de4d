//! Arguments from an input's bytes: mostly right, and wrong in every way that a C caller may be.

use std::{ffi::c_void, mem, ptr};

use cryptoki_sys::*;

use super::{
    World,
    functions::{Function, Role, Word},
    reserved,
};
use crate::{
    memory::{At, Memory, void},
    parameter::{Input, Kept, Reader, build, mechanism},
    template,
};

/// From here on a byte for a handle means one that is wrong.
pub const WRONG: u8 = 0xf0;

/// The arguments of one call, and what is looked at after it.
#[derive(Default)]
pub struct Arguments {
    /// What the function is called with.
    pub words: Vec<Word>,
    /// Handles that it has made, once it has succeeded.
    pub made: Vec<CK_OBJECT_HANDLE>,
    outputs: Vec<Output>,
    /// Room for one handle each.
    handles: Vec<At>,
    /// Room for handles, and for how many there are.
    found: Option<(At, Option<At>)>,
    message: Option<(At, At)>,
}

/// A buffer, and how long the caller says it is.
struct Output {
    buffer: Option<At>,
    length: Option<At>,
    capacity: u64,
}

impl Arguments {
    /// Takes the arguments of `function` from the input. All pointers are into `memory`, which has
    /// what their lengths say.
    pub fn decode(
        world: &World,
        function: &Function,
        input: &mut Input<'_>,
        memory: &mut Memory,
    ) -> Arguments {
        let mut arguments = Arguments::default();
        for (at, role) in function.roles.iter().enumerate() {
            match role {
                Role::Session => arguments.number(handle(input, &world.sessions)),
                Role::Slot => arguments.number(handle(input, &[0, 1])),
                Role::In => arguments.bytes(world, input, memory),
                Role::Out => arguments.output(input, memory),
                Role::Bytes => arguments.room(input, memory),
                Role::Template if function.name == "C_GetAttributeValue" => {
                    arguments.asked(input, memory);
                }
                Role::Template => arguments.template(input, memory),
                Role::Mechanism => arguments.mechanism(input, memory, &world.kept),
                Role::Parameter => {
                    let built = build(input, memory, Reader::Message, &world.kept);
                    arguments.message = built.message;
                    arguments.pointer(built.pointer);
                    arguments.number(built.length);
                }
                Role::Handles => arguments.found(input, memory),
                Role::List(size) => arguments.list(*size, input, memory),
                Role::Place("c_void") => arguments.address(function.name, at, input, memory),
                Role::Place("CK_UTF8CHAR") => arguments.text(input, memory),
                Role::Place(kind) => arguments.place(kind, input, memory),
                Role::Plain(kind) => {
                    let number = number(kind, world, input);
                    arguments.number(number);
                }
            }
        }
        arguments
    }

    fn number(&mut self, number: u64) {
        self.words.push(Word::Number(number));
    }

    fn pointer<T>(&mut self, pointer: *mut T) {
        self.words.push(Word::Pointer(void(pointer)));
    }

    /// Bytes to read: given here, what an earlier call gave out, or none.
    fn bytes(&mut self, world: &World, input: &mut Input<'_>, memory: &mut Memory) {
        let choice = input.byte();
        let (pointer, length) = match choice % 8 {
            0..=2 => {
                let bytes = input.string();
                (memory.input(bytes), bytes.len() as u64)
            }
            3 => {
                let bytes = input.string().repeat(40);
                (memory.input(&bytes), bytes.len() as u64)
            }
            4 => {
                let last = world.outputs.len().saturating_sub(1 + usize::from(choice / 8) % 4);
                let bytes = world.outputs.get(last).map(Vec::as_slice).unwrap_or_default();
                (memory.input(bytes), bytes.len() as u64)
            }
            5 => (ptr::null_mut(), input.byte().into()),
            6 => (ptr::null_mut(), 0),
            // More than there can be: refused before it is read.
            _ => (memory.input(&[]), if choice < 0x80 { !0 } else { 1 << 63 }),
        };
        self.pointer(pointer);
        self.number(length);
    }

    /// A buffer and its length (clause 5.2).
    fn output(&mut self, input: &mut Input<'_>, memory: &mut Memory) {
        let (room, capacity, is_told) = match input.byte() % 8 {
            0..=2 => (Some(1024), 1024, true),
            3 => (None, 77, true),
            4 => {
                let length = usize::from(input.byte());
                (Some(length), length as u64, true)
            }
            5 => (Some(16), 16, false),
            // What a caller says who knows that there is enough.
            6 => (Some(1 << 16), !0, true),
            _ => (Some(0), 0, true),
        };
        let buffer = room.map(|room| memory.room(room));
        let length = is_told.then(|| memory.block(&u64::to_ne_bytes(capacity)));
        self.pointer(buffer.map_or(ptr::null_mut(), |at| memory.pointer(at)));
        self.pointer(length.map_or(ptr::null_mut(), |at| memory.pointer(at)));
        self.outputs.push(Output { buffer, length, capacity });
    }

    /// A buffer that is filled to its end.
    fn room(&mut self, input: &mut Input<'_>, memory: &mut Memory) {
        let length = input.byte();
        let (pointer, length) = match length {
            0xff => (ptr::null_mut(), 16),
            0xfe => (ptr::null_mut(), 0),
            0xfd => {
                let at = memory.room(0);
                (memory.pointer(at), !0)
            }
            length => {
                let at = memory.room(length.into());
                (memory.pointer(at), length.into())
            }
        };
        self.pointer(pointer);
        self.number(length);
    }

    fn template(&mut self, input: &mut Input<'_>, memory: &mut Memory) {
        let choice = input.byte();
        let mut attributes = Vec::new();
        for _ in 0..choice % 16 {
            let mut attribute = template::attribute(input, memory);
            if attribute.type_ == CKA_MODULUS_BITS && is_slow(&attribute, memory) {
                // Seconds for each, and nothing in it is of this module.
                attribute.ulValueLen = 0;
            }
            attributes.push(attribute);
        }
        self.attributes(choice, &attributes, memory);
    }

    fn attributes(&mut self, choice: u8, attributes: &[CK_ATTRIBUTE], memory: &mut Memory) {
        let count = match choice {
            0xff => !0,
            0xfe => 4097,
            _ => attributes.len() as u64,
        };
        match choice {
            0xfd => self.pointer(ptr::null_mut::<CK_ATTRIBUTE>()),
            _ => self.pointer(template::array(memory, attributes)),
        }
        self.number(count);
    }

    /// A template to be filled, with room of all sizes.
    fn asked(&mut self, input: &mut Input<'_>, memory: &mut Memory) {
        let choice = input.byte();
        let mut attributes = Vec::new();
        for _ in 0..choice % 16 {
            let kind = template::kind(input);
            let room = match input.byte() {
                0xff => None,
                room => Some(usize::from(room) * 8),
            };
            let (pointer, length) = match room {
                None => (ptr::null_mut(), 3),
                Some(room) if akv_pkcs11::object::nested::is_nested(kind) => {
                    let inner: Vec<_> = (0..room % 5)
                        .map(|room| {
                            let at = memory.room(room);
                            CK_ATTRIBUTE {
                                type_: 0,
                                pValue: void(memory.pointer(at)),
                                ulValueLen: room as u64,
                            }
                        })
                        .collect();
                    (template::array(memory, &inner), mem::size_of_val(&*inner))
                }
                Some(room) => {
                    let at = memory.room(room);
                    (memory.pointer(at), room)
                }
            };
            attributes.push(CK_ATTRIBUTE {
                type_: kind,
                pValue: void(pointer),
                ulValueLen: length as u64,
            });
        }
        self.attributes(choice, &attributes, memory);
    }

    fn mechanism(&mut self, input: &mut Input<'_>, memory: &mut Memory, kept: &Kept) {
        let kind = mechanism(input);
        if kind == CKM_RSA_PKCS_KEY_PAIR_GEN && input.byte() == u8::MAX {
            self.pointer(ptr::null_mut::<CK_MECHANISM>());
            return;
        }
        let built = build(input, memory, Reader::Mechanism(kind), kept);
        let mechanism = CK_MECHANISM {
            mechanism: kind,
            pParameter: built.pointer,
            ulParameterLen: built.length,
        };
        let place = memory.place(&mechanism);
        self.pointer(place);
    }

    fn found(&mut self, input: &mut Input<'_>, memory: &mut Memory) {
        let choice = input.byte();
        let capacity = usize::from(choice % 8);
        let at = memory.room(if choice >= WRONG { 1 << 16 } else { capacity * 8 });
        self.pointer(memory.pointer(at));
        self.number(if choice >= WRONG { !0 } else { capacity as u64 });
        self.found = Some((at, None));
    }

    fn list(&mut self, size: usize, input: &mut Input<'_>, memory: &mut Memory) {
        let (room, count) = match input.byte() {
            0xff => (None, 9),
            0xfe => (Some(256 * size), !0),
            count => (Some(usize::from(count) * size), count.into()),
        };
        let buffer = room.map(|room| memory.room(room));
        let length = memory.block(&u64::to_ne_bytes(count));
        self.pointer(buffer.map_or(ptr::null_mut(), |at| memory.pointer(at)));
        self.pointer(memory.pointer(length));
    }

    /// Room for one value.
    fn place(&mut self, kind: &str, input: &mut Input<'_>, memory: &mut Memory) {
        if input.byte() == u8::MAX {
            self.pointer(ptr::null_mut::<u8>());
            return;
        }
        let at = memory.room(size_of_type(kind));
        self.pointer(memory.pointer(at));
        match (kind, &mut self.found) {
            ("CK_OBJECT_HANDLE" | "CK_SESSION_HANDLE", _) => self.handles.push(at),
            ("CK_ULONG", Some((_, count))) => *count = Some(at),
            _ => {}
        }
    }

    /// A text that ends with NUL; C_InitToken's label has 32 bytes and none.
    fn text(&mut self, input: &mut Input<'_>, memory: &mut Memory) {
        let text = input.string();
        let mut padded = text.to_vec();
        padded.resize(text.len().max(32), b' ');
        padded.push(0);
        let pointer = memory.input(&padded);
        self.pointer(if text == [0] { ptr::null_mut() } else { pointer });
    }

    /// What functions say about a pointer without type: C_Initialize's arguments, or NULL.
    fn address(&mut self, name: &str, at: usize, input: &mut Input<'_>, memory: &mut Memory) {
        let choice = input.byte();
        match name {
            "C_Initialize" => {
                let text = memory.input(reserved().as_bytes_with_nul());
                let given = |bit: u8| choice & bit != 0;
                let arguments = CK_C_INITIALIZE_ARGS {
                    CreateMutex: given(0x10).then_some(create),
                    DestroyMutex: given(0x20).then_some(other),
                    LockMutex: given(0x40).then_some(other),
                    UnlockMutex: given(0x80).then_some(other),
                    flags: u64::from(choice & 3),
                    pReserved: match choice & 0x0c {
                        0x0c => void(memory.input(b"something else\0")),
                        _ => void(text),
                    },
                };
                let place = memory.place(&arguments);
                self.pointer(place);
            }
            "C_OpenSession" => {
                let at = memory.room(8);
                self.pointer(memory.pointer(at));
            }
            _ if choice < WRONG => self.pointer(ptr::null_mut::<u8>()),
            _ => {
                let at = memory.room(8 * (at + 1));
                self.pointer(memory.pointer(at));
            }
        }
    }

    /// What clause 5.2 says about buffers.
    pub fn check(&self, name: &str, rv: CK_RV, memory: &Memory) {
        for output in &self.outputs {
            let length = output.length.map(|at| memory.number(at));
            let untouched = output.buffer.is_none_or(|at| memory.is_untouched(at));
            match rv {
                CKR_OK => {
                    let length = length.unwrap_or(0);
                    let fits = output.buffer.is_none() || length <= output.capacity;
                    assert!(fits, "{name}: {length} bytes, room for {}", output.capacity);
                }
                CKR_BUFFER_TOO_SMALL => {
                    let length = length.unwrap_or(0);
                    assert!(length > output.capacity, "{name}: {length} bytes are too many?");
                    assert!(untouched, "{name}: written to what is too small");
                }
                _ => assert!(untouched, "{name}: written, and then {rv:#x}"),
            }
        }
        if rv == CKR_OK {
            for at in &self.handles {
                assert!(memory.number(*at) != 0, "{name}: handle 0");
            }
        }
    }

    /// Takes in what a successful call gave.
    pub fn learn(&mut self, world: &mut World, rv: CK_RV, memory: &Memory) {
        if rv != CKR_OK {
            return;
        }
        for output in &self.outputs {
            if let (Some(buffer), Some(length)) = (output.buffer, output.length) {
                let bytes = memory.bytes(buffer);
                let length = memory.number(length) as usize;
                world.outputs.push(bytes[..length.min(bytes.len())].to_vec());
            }
        }
        if let Some((iv, tag)) = self.message {
            world.kept = Some((memory.bytes(iv).to_vec(), memory.bytes(tag).to_vec()));
        }
        match self.found {
            Some((at, count)) => {
                let count = count.map_or(0, |at| memory.number(at)) as usize;
                let all = memory.bytes(at).chunks_exact(8).take(count);
                let handles = all.map(|bytes| bytes.try_into().map_or(0, u64::from_ne_bytes));
                self.made = handles.collect();
            }
            None => self.made = self.handles.iter().map(|at| memory.number(*at)).collect(),
        }
    }
}

/// Mutexes of the caller, which the module never needs.
unsafe extern "C" fn create(_: *mut *mut c_void) -> CK_RV {
    panic!("a mutex of the caller's was made");
}

unsafe extern "C" fn other(_: *mut c_void) -> CK_RV {
    panic!("a mutex of the caller's was used");
}

/// One of those that are known, or none of them.
fn handle(input: &mut Input<'_>, known: &[u64]) -> u64 {
    match input.byte() {
        byte @ WRONG.. => [0, !0, 4711, 1 << 32][usize::from(byte) % 4],
        byte => known.get(usize::from(byte) % known.len().max(1)).copied().unwrap_or(0),
    }
}

/// A number of this C type.
fn number(kind: &str, world: &World, input: &mut Input<'_>) -> u64 {
    match kind {
        "CK_OBJECT_HANDLE" => handle(input, &world.objects),
        "CK_MECHANISM_TYPE" => mechanism(input),
        "CK_BBOOL" => u64::from(input.byte() & 1),
        "CK_USER_TYPE" => u64::from(input.byte() % 5),
        "CK_FLAGS" => match input.byte() {
            // One of all flags, or some of the first ones.
            bit @ 0x80.. => 1 << (bit % 64),
            bits => bits.into(),
        },
        _ => input.byte().into(),
    }
}

/// Bytes of a C type that a function wants room for.
fn size_of_type(kind: &str) -> usize {
    match kind {
        "CK_INFO" => size_of::<CK_INFO>(),
        "CK_SLOT_INFO" => size_of::<CK_SLOT_INFO>(),
        "CK_TOKEN_INFO" => size_of::<CK_TOKEN_INFO>(),
        "CK_MECHANISM_INFO" => size_of::<CK_MECHANISM_INFO>(),
        "CK_SESSION_INFO" => size_of::<CK_SESSION_INFO>(),
        "CK_ASYNC_DATA" => size_of::<CK_ASYNC_DATA>(),
        "CK_VERSION" => size_of::<CK_VERSION>(),
        "CK_ULONG" | "CK_FLAGS" | "CK_OBJECT_HANDLE" | "CK_SESSION_HANDLE" | "CK_SLOT_ID" => 8,
        _ if kind.starts_with('*') => size_of::<*mut u8>(),
        _ => panic!("how long is {kind}?"),
    }
}

/// Whether this is a size of RSA key that can be made.
fn is_slow(attribute: &CK_ATTRIBUTE, memory: &Memory) -> bool {
    attribute.ulValueLen == 8 && memory.last_number() >= 1024
}
