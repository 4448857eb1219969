//! A reader of Python pickles, of just the opcodes that CIFAR's files use.
//!
//! A pickle is a program for a stack machine that can call any Python function. This reader knows two functions,
//! `numpy.core.multiarray._reconstruct` (of an `ndarray`) and `numpy.dtype`, as values, never as code; any other
//! name and any other opcode is refused. Values live in one arena and refer to each other by number, so that no
//! input makes the reader recurse; memory is bounded by [`MAX_VALUES`] and strings are slices of the input.

use std::collections::HashMap;

use handgrad::{Error, ErrorKind, Result};

/// Values of one pickle at most: CIFAR's largest file has about 300 thousand.
pub const MAX_VALUES: usize = 4 << 20;

/// The number of a value in the arena.
type Id = u32;

/// One value.
#[derive(Clone, Debug, PartialEq)]
enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Bytes(&'a [u8]),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    /// Keys and values in turn.
    Dict(Vec<(Id, Id)>),
    /// One of the known names.
    Global(Global),
    /// `dtype("u1")`: the one element type there is.
    Byte,
    /// `_reconstruct(ndarray, (0,), 'b')` before its state is set.
    EmptyArray,
    Array {
        shape: Vec<usize>,
        bytes: &'a [u8],
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Global {
    Reconstruct,
    NdArray,
    DType,
}

/// A whole pickle that has been read.
#[derive(Debug)]
pub struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Id,
    subject: String,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle in `bytes`; `subject` names it in errors.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] for anything but the known opcodes used as CIFAR's files use them.
    pub fn read(bytes: &'a [u8], subject: &str) -> Result<Self> {
        let mut machine =
            Machine { bytes, at: 0, values: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
        match machine.run() {
            Ok(root) => Ok(Pickle { values: machine.values, root, subject: subject.to_owned() }),
            Err(why) => Err(refused(subject, format!("{why} (at byte {})", machine.at))),
        }
    }

    fn entry(&self, key: &str) -> Result<&Value<'a>> {
        let Value::Dict(entries) = &self.values[self.root as usize] else {
            return Err(refused(&self.subject, "not a dictionary"));
        };
        // The last one wins, as in Python.
        let found = entries.iter().rev().find(|(k, _)| self.values[*k as usize] == Value::Bytes(key.as_bytes()));
        found
            .map(|&(_, value)| &self.values[value as usize])
            .ok_or_else(|| refused(&self.subject, format!("no {key:?}")))
    }

    fn list(&self, key: &str) -> Result<impl Iterator<Item = &Value<'a>>> {
        match self.entry(key)? {
            Value::List(items) => Ok(items.iter().map(|&id| &self.values[id as usize])),
            _ => Err(refused(&self.subject, format!("{key:?} is no list"))),
        }
    }

    /// The list of small non-negative integers under `key`.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] if there is no such list.
    pub fn labels(&self, key: &str) -> Result<Vec<u32>> {
        let number = |value: &Value| match value {
            Value::Int(i) => u32::try_from(*i).map_err(|_| refused(&self.subject, format!("{i} in {key:?}"))),
            _ => Err(refused(&self.subject, format!("an item of {key:?} is no number"))),
        };
        self.list(key)?.map(number).collect()
    }

    /// The list of strings under `key`.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] if there is no such list.
    pub fn strings(&self, key: &str) -> Result<Vec<String>> {
        let string = |value: &Value| match value {
            Value::Bytes(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
            _ => None,
        };
        let item =
            |value| string(value).ok_or_else(|| refused(&self.subject, format!("an item of {key:?} is no text")));
        self.list(key)?.map(item).collect()
    }

    /// The rows and columns of the two-dimensional byte array under `key`, and its bytes row by row.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] if there is no such array.
    pub fn bytes(&self, key: &str) -> Result<(usize, usize, &'a [u8])> {
        match self.entry(key)? {
            Value::Array { shape, bytes } => match shape[..] {
                [rows, columns] => Ok((rows, columns, bytes)),
                _ => Err(refused(&self.subject, format!("{key:?} has the shape {shape:?}"))),
            },
            _ => Err(refused(&self.subject, format!("{key:?} is no array of bytes"))),
        }
    }
}

fn refused(subject: &str, found: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Format, subject, found)
        .expected("a pickle as CIFAR's archives have it")
        .hint("the file is damaged or another pickle; fetch the archive again: data-tools fetch cifar10")
}

/// A step either works or says in a few words why not.
type Step<T = ()> = std::result::Result<T, String>;

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// Stack heights where marks stand.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Step<Id> {
        if self.take(2)? != [0x80, 2] {
            return Err("not a pickle of protocol 2".into());
        }
        loop {
            let opcode = self.byte()?;
            if opcode == b'.' {
                return match (&self.stack[..], self.at == self.bytes.len()) {
                    (&[root], true) => Ok(root),
                    _ => Err("more than one value, or bytes behind the end".into()),
                };
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Step {
        match opcode {
            b'(' => {
                if self.marks.len() >= MAX_VALUES {
                    return Err(format!("more than {MAX_VALUES} marks"));
                }
                self.marks.push(self.stack.len());
            }
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'K' => self.int(1)?,
            b'M' => self.int(2)?,
            b'J' => self.int(4)?,
            b'U' => self.string(1)?,
            b'T' => self.string(4)?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            b']' => self.push(Value::List(Vec::new()))?,
            b'q' => self.memoize(1)?,
            b'r' => self.memoize(4)?,
            b'h' => self.recall(1)?,
            b'j' => self.recall(4)?,
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' => {
                let items = self.marked()?;
                self.push(Value::Tuple(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.extend_list(&[item])?;
            }
            b'e' => {
                let items = self.marked()?;
                self.extend_list(&items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.extend_dict(&[key, value])?;
            }
            b'u' => {
                let items = self.marked()?;
                self.extend_dict(&items)?;
            }
            b'c' => self.global()?,
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            _ => return Err(format!("the opcode {opcode:#04x}, which these files do not use")),
        }
        Ok(())
    }

    fn take(&mut self, len: usize) -> Step<&'a [u8]> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.get(..len));
        let taken = taken.ok_or("it ends too early")?;
        self.at += len;
        Ok(taken)
    }

    fn byte(&mut self) -> Step<u8> {
        Ok(self.take(1)?[0])
    }

    /// A little-endian unsigned number of 1 to 4 bytes.
    fn number(&mut self, len: usize) -> Step<u32> {
        Ok(self.take(len)?.iter().rev().fold(0, |n, &byte| n << 8 | u32::from(byte)))
    }

    fn line(&mut self) -> Step<&'a [u8]> {
        // The longest name that is known has 22 bytes.
        let rest = &self.bytes[self.at..self.bytes.len().min(self.at + 64)];
        let len = rest.iter().position(|&b| b == b'\n').ok_or("a name that is not known")?;
        self.at += len + 1;
        Ok(&rest[..len])
    }

    fn push(&mut self, value: Value<'a>) -> Step {
        if self.values.len() >= MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values"));
        }
        self.stack.push(self.values.len() as Id);
        self.values.push(value);
        Ok(())
    }

    /// Takes a value from the stack, but none from below the last mark.
    fn pop(&mut self) -> Step<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("a value is missing".into());
        }
        self.stack.pop().ok_or_else(|| "a value is missing".into())
    }

    fn top(&self) -> Step<Id> {
        self.stack.last().copied().ok_or_else(|| "a value is missing".into())
    }

    /// Takes all values above the last mark, and the mark.
    fn marked(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len()).ok_or("a mark is missing")?;
        Ok(self.stack.split_off(mark))
    }

    fn int(&mut self, len: usize) -> Step {
        let number = self.number(len)?;
        // Only the four-byte number has a sign.
        self.push(Value::Int(if len == 4 { i64::from(number as i32) } else { i64::from(number) }))
    }

    fn string(&mut self, len: usize) -> Step {
        let len = self.number(len)? as usize;
        let bytes = self.take(len)?;
        self.push(Value::Bytes(bytes))
    }

    fn memoize(&mut self, len: usize) -> Step {
        let (place, value) = (self.number(len)?, self.top()?);
        if self.memo.len() >= MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values"));
        }
        self.memo.insert(place, value);
        Ok(())
    }

    fn recall(&mut self, len: usize) -> Step {
        let place = self.number(len)?;
        let value = *self.memo.get(&place).ok_or("a reference to nothing")?;
        if self.stack.len() >= MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values"));
        }
        self.stack.push(value);
        Ok(())
    }

    fn tuple(&mut self, len: usize) -> Step {
        let mut items = Vec::with_capacity(len);
        for _ in 0..len {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Value::Tuple(items))
    }

    fn extend_list(&mut self, items: &[Id]) -> Step {
        let list = self.top()? as usize;
        match &mut self.values[list] {
            Value::List(list) if list.len() + items.len() <= MAX_VALUES => list.extend_from_slice(items),
            _ => return Err("items for what is no list".into()),
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: &[Id]) -> Step {
        let dict = self.top()? as usize;
        let (pairs, rest) = items.as_chunks::<2>();
        match &mut self.values[dict] {
            Value::Dict(dict) if rest.is_empty() && dict.len() + pairs.len() <= MAX_VALUES => {
                dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
            }
            _ => return Err("entries for what is no dictionary".into()),
        }
        Ok(())
    }

    fn global(&mut self) -> Step {
        let (module, name) = (self.line()?, self.line()?);
        let global = match (module, name) {
            (b"numpy.core.multiarray", b"_reconstruct") => Global::Reconstruct,
            (b"numpy", b"ndarray") => Global::NdArray,
            (b"numpy", b"dtype") => Global::DType,
            _ => {
                let text = |bytes| String::from_utf8_lossy(bytes).escape_debug().to_string();
                return Err(format!("it asks for {}.{}, which is never called here", text(module), text(name)));
            }
        };
        self.push(Value::Global(global))
    }

    fn items_of(&self, tuple: Id) -> Step<Vec<&Value<'a>>> {
        match &self.values[tuple as usize] {
            // None of the calls and states there are has more.
            Value::Tuple(items) if items.len() > 8 => Err(format!("{} arguments", items.len())),
            Value::Tuple(items) => Ok(items.iter().map(|&id| &self.values[id as usize]).collect()),
            _ => Err("arguments that are no tuple".into()),
        }
    }

    /// The two calls there are: an empty array, and the type of bytes.
    fn reduce(&mut self) -> Step {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let result = match (&self.values[function as usize], &self.items_of(arguments)?[..]) {
            (
                Value::Global(Global::Reconstruct),
                [Value::Global(Global::NdArray), Value::Tuple(_), Value::Bytes(b"b")],
            ) => Value::EmptyArray,
            (Value::Global(Global::DType), [Value::Bytes(b"u1"), Value::Int(0), Value::Int(1)]) => Value::Byte,
            _ => return Err("a call that these files do not make".into()),
        };
        self.push(result)
    }

    /// Sets the state of the value below: of the type of bytes (nothing to keep), or of an array.
    fn build(&mut self) -> Step {
        let (state, target) = (self.pop()?, self.top()? as usize);
        let state = self.items_of(state)?;
        let array = match (&self.values[target], &state[..]) {
            (Value::Byte, [Value::Int(_), Value::Bytes(b"|"), ..]) => return Ok(()),
            // version, shape, element type, columns first, bytes
            (
                Value::EmptyArray,
                [Value::Int(1), Value::Tuple(shape), Value::Byte, Value::Bool(false), Value::Bytes(bytes)],
            ) => Value::Array { shape: self.shape(shape, bytes.len())?, bytes },
            _ => return Err("a state that these files do not set".into()),
        };
        self.values[target] = array;
        Ok(())
    }

    /// The sides of an array of `len` bytes.
    fn shape(&self, sides: &[Id], len: usize) -> Step<Vec<usize>> {
        let side = |&id: &Id| match self.values[id as usize] {
            Value::Int(n) => usize::try_from(n).ok(),
            _ => None,
        };
        let shape: Option<Vec<usize>> = sides.iter().map(side).collect();
        let shape = shape.filter(|shape| shape.len() <= 4).ok_or("a shape that is none")?;
        let elements = shape.iter().try_fold(1usize, |n, &side| n.checked_mul(side));
        if elements == Some(len) { Ok(shape) } else { Err(format!("{len} bytes for the shape {shape:?}")) }
    }
}
