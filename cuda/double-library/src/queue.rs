//! The work of streams: done at once, or, where the double is late, no sooner than somebody waits for it.
//!
//! A program that orders its copies and kernels by what usually is fast enough runs right on a GPU, until it doesn't. Late
//! work takes the other end: a copy that nobody waits for has not begun, and a kernel on another stream that waits for no
//! event comes before it. Early copies take both ends: kernels come late, and a copy to the device as soon as its stream lets
//! it, before the kernels that still read what it overwrites, where it does not wait for them.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use driver_double::Launch;

use crate::memory::code;
use crate::state::{Function, Handle, ILLEGAL_ADDRESS, State, fail};

/// The flag of a stream that does not wait for the default one.
const NON_BLOCKING: u32 = 1;

/// The handles up to this one are default streams.
const LAST_DEFAULT: usize = 2;

/// What a stream is asked for.
pub(crate) enum Work {
    Launch {
        function: Function,
        launch: Launch,
        args: Vec<Vec<u8>>,
    },
    /// Bytes as they were when the copy was asked for, and where they lie if that is page-locked memory.
    Upload {
        to: u64,
        bytes: Vec<u8>,
        locked: Option<usize>,
    },
    Download {
        to: usize,
        from: u64,
        bytes: usize,
    },
    Copy {
        to: u64,
        from: u64,
        bytes: usize,
    },
    Fill {
        to: u64,
        pattern: Vec<u8>,
        bytes: usize,
    },
    Wait(Recorded),
}

/// An event, recorded behind so much of a stream's work.
#[derive(Clone, Copy)]
pub(crate) struct Recorded {
    stream: usize,
    position: u64,
    pub at: Instant,
}

/// The work of one stream that is not done.
#[derive(Default)]
struct Queue {
    work: VecDeque<Work>,
    done: u64,
}

/// When work is done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    AtOnce,
    Late,
    /// Late, but for copies to the device, which nothing but events of their stream holds back.
    EarlyCopies,
}

/// That of all streams.
pub(crate) struct Queues {
    when: When,
    streams: HashMap<usize, Queue>,
}

impl Queues {
    /// As the environment's number says.
    pub fn new(late: usize) -> Result<Self, String> {
        let when = match late {
            0 => When::AtOnce,
            1 => When::Late,
            2 => When::EarlyCopies,
            other => return Err(format!("DRIVER_DOUBLE_LATE={other}: expected 0, 1 or 2")),
        };
        Ok(Queues { when, streams: HashMap::new() })
    }

    /// An event behind all that a stream was asked for.
    pub fn mark(&self, stream: Handle) -> Recorded {
        let stream = stream as usize;
        let position = self.streams.get(&stream).map_or(0, |queue| queue.done + queue.work.len() as u64);
        Recorded { stream, position, at: Instant::now() }
    }

    /// Forgets what is queued. Events that wait for it count as reached.
    pub fn clear(&mut self) {
        for queue in self.streams.values_mut() {
            queue.done += queue.work.drain(..).len() as u64;
        }
    }

    /// The next work of a stream, where it is a copy to the device, or waits for what is done.
    fn early(&mut self, stream: usize) -> Option<Work> {
        let ready = match self.streams.get(&stream)?.work.front()? {
            Work::Upload { .. } => true,
            Work::Wait(behind) => self.streams.get(&behind.stream).is_none_or(|queue| queue.done >= behind.position),
            _ => false,
        };
        if ready { self.before(stream, u64::MAX) } else { None }
    }

    /// The next work of a stream, where that comes before a position.
    fn before(&mut self, stream: usize, position: u64) -> Option<Work> {
        let queue = self.streams.get_mut(&stream).filter(|queue| queue.done < position)?;
        queue.done += 1;
        queue.work.pop_front()
    }
}

impl State {
    /// Queues work, or does it where the double is not late.
    pub fn submit(&mut self, stream: Handle, work: Work) -> Result<(), i32> {
        if self.queues.when == When::AtOnce {
            return self.work(&work);
        }
        if stream as usize <= LAST_DEFAULT {
            self.finish(stream)?;
            return self.work(&work);
        }
        self.queues.streams.entry(stream as usize).or_default().work.push_back(work);
        if self.queues.when == When::EarlyCopies {
            while let Some(work) = self.queues.early(stream as usize) {
                self.work(&work)?;
            }
        }
        Ok(())
    }

    /// Does all of a stream's work; before the default stream comes that of all streams that wait for it.
    pub fn finish(&mut self, stream: Handle) -> Result<(), i32> {
        if stream as usize > LAST_DEFAULT {
            return self.reach(self.queues.mark(stream));
        }
        let blocking = |(_, (flags, _)): &(&usize, &(u32, i32))| flags & NON_BLOCKING == 0;
        let streams: Vec<usize> = self.streams.iter().filter(blocking).map(|(&stream, _)| stream).collect();
        streams.into_iter().try_for_each(|stream| self.finish(stream as Handle))
    }

    /// Does all work of all streams.
    pub fn finish_all(&mut self) -> Result<(), i32> {
        let streams: Vec<usize> = self.streams.keys().copied().collect();
        streams.into_iter().try_for_each(|stream| self.finish(stream as Handle))
    }

    /// [`State::finish_all`] for a call that gives something back, which a broken device must not prevent.
    pub fn settle(&mut self) {
        if self.broken.is_none() && self.finish_all().is_err() {
            self.queues.clear();
        }
    }

    /// Does the work that an event was recorded behind.
    pub fn reach(&mut self, recorded: Recorded) -> Result<(), i32> {
        while let Some(work) = self.queues.before(recorded.stream, recorded.position) {
            // The call that asked for it is long over: as with a kernel's fault, every later one tells.
            self.work(&work).inspect_err(|&code| self.broken = Some(code))?;
        }
        Ok(())
    }

    fn work(&mut self, work: &Work) -> Result<(), i32> {
        match work {
            Work::Launch { function, launch, args } => crate::module::run(self, function, *launch, args),
            Work::Upload { to, bytes, locked } => {
                // SAFETY: page-locked memory is given back only after the work that is queued.
                let now = locked.map(|at| unsafe { std::slice::from_raw_parts(at as *const u8, bytes.len()) });
                if now.is_some_and(|now| now != bytes) {
                    let what = "the host wrote to page-locked memory while a copy from it was queued";
                    return Err(fail(ILLEGAL_ADDRESS, &format!("{what}: {} bytes to {to:#x}", bytes.len())));
                }
                self.device.upload(*to, bytes).map_err(code)
            }
            Work::Download { to, from, bytes } => {
                // SAFETY: the caller gave room for so many bytes, which it keeps until the copy is done.
                let to = unsafe { std::slice::from_raw_parts_mut(*to as *mut u8, *bytes) };
                self.device.download(*from, to).map_err(code)
            }
            Work::Copy { to, from, bytes } => self.device.copy(*to, *from, *bytes).map_err(code),
            Work::Fill { to, pattern, bytes } => {
                for first in (0..*bytes).step_by(pattern.len()) {
                    let len = pattern.len().min(bytes - first);
                    self.device.upload(to + first as u64, &pattern[..len]).map_err(code)?;
                }
                Ok(())
            }
            Work::Wait(recorded) => self.reach(*recorded),
        }
    }

    /// Whether all of this memory of the host is page-locked.
    pub fn is_locked(&self, at: usize, bytes: usize) -> bool {
        self.host.iter().any(|(&start, &len)| start <= at && at + bytes <= start + len)
    }
}
