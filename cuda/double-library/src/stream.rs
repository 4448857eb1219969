//! Streams and events: waiting for either does the work that is queued before.

use std::ffi::{c_int, c_uint, c_void};

use crate::queue::{Recorded, Work};
use crate::state::{Handle, INVALID_HANDLE, NOT_READY, answer, fail, put, working};

/// A stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreateWithPriority(stream: *mut Handle, flags: c_uint, priority: c_int) -> i32 {
    answer(|| {
        let mut state = working()?;
        let handle = state.handle();
        state.streams.insert(handle, (flags, priority));
        // SAFETY: the caller gives room.
        unsafe { put(stream, handle as Handle) }
    })
}

/// A stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut Handle, flags: c_uint) -> i32 {
    // SAFETY: the caller gives room.
    unsafe { cuStreamCreateWithPriority(stream, flags, 0) }
}

/// Its flags.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamGetFlags(stream: Handle, flags: *mut c_uint) -> i32 {
    answer(|| {
        let found = working()?.streams.get(&(stream as usize)).map_or(0, |s| s.0);
        // SAFETY: the caller gives room.
        unsafe { put(flags, found) }
    })
}

/// Its priority.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamGetPriority(stream: Handle, priority: *mut c_int) -> i32 {
    answer(|| {
        let found = working()?.streams.get(&(stream as usize)).map_or(0, |s| s.1);
        // SAFETY: the caller gives room.
        unsafe { put(priority, found) }
    })
}

/// Does its work; gives the fault of a kernel, if there was one.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(stream: Handle) -> i32 {
    answer(|| {
        let mut state = working()?;
        state.stream(stream)?;
        state.finish(stream)
    })
}

/// As [`cuStreamSynchronize`]: a program that asks until the work is done must get there.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamQuery(stream: Handle) -> i32 {
    cuStreamSynchronize(stream)
}

/// The stream is gone.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(stream: Handle) -> i32 {
    answer(|| {
        let mut state = crate::state::state()?;
        state.settle();
        let gone = state.streams.remove(&(stream as usize));
        gone.map(|_| ()).ok_or_else(|| fail(INVALID_HANDLE, "no such stream"))
    })
}

/// No stream is being captured.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamIsCapturing(stream: Handle, status: *mut c_int) -> i32 {
    answer(|| {
        working()?.stream(stream)?;
        // SAFETY: the caller gives room.
        unsafe { put(status, 0) }
    })
}

/// The stream's later work comes after what the event was recorded behind; an event that was not recorded delays nothing.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWaitEvent(stream: Handle, event: Handle, _flags: c_uint) -> i32 {
    answer(|| {
        let mut state = working()?;
        state.stream(stream)?;
        match known(&state, event)? {
            Some(recorded) => state.submit(stream, Work::Wait(recorded)),
            None => Ok(()),
        }
    })
}

/// Does the stream's work and calls the function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchHostFunc(
    stream: Handle,
    function: Option<unsafe extern "C" fn(*mut c_void)>,
    data: *mut c_void,
) -> i32 {
    answer(|| {
        let mut state = working()?;
        state.stream(stream)?;
        state.finish(stream)?;
        // The lock is not held meanwhile: the function may not call the driver, but it may take its time.
        drop(state);
        if let Some(function) = function {
            // SAFETY: the caller's function, with the caller's data.
            unsafe { function(data) };
        }
        Ok(())
    })
}

fn known(state: &crate::state::State, event: Handle) -> Result<Option<Recorded>, i32> {
    state.events.get(&(event as usize)).copied().ok_or_else(|| fail(INVALID_HANDLE, "no such event"))
}

/// An event.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: *mut Handle, _flags: c_uint) -> i32 {
    answer(|| {
        let mut state = working()?;
        let handle = state.handle();
        state.events.insert(handle, None);
        // SAFETY: the caller gives room.
        unsafe { put(event, handle as Handle) }
    })
}

/// Behind the stream's work so far.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(event: Handle, stream: Handle) -> i32 {
    answer(|| {
        let mut state = working()?;
        state.stream(stream)?;
        known(&state, event)?;
        let recorded = state.queues.mark(stream);
        state.events.insert(event as usize, Some(recorded));
        Ok(())
    })
}

/// Does the work that the event was recorded behind.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventSynchronize(event: Handle) -> i32 {
    answer(|| {
        let mut state = working()?;
        match known(&state, event)? {
            Some(recorded) => state.reach(recorded),
            None => Ok(()),
        }
    })
}

/// As [`cuEventSynchronize`].
#[unsafe(no_mangle)]
pub extern "C" fn cuEventQuery(event: Handle) -> i32 {
    cuEventSynchronize(event)
}

/// The processor's time between two events, in milliseconds: it says nothing of a GPU's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime(milliseconds: *mut f32, start: Handle, end: Handle) -> i32 {
    answer(|| {
        let state = working()?;
        let (Some(start), Some(end)) = (known(&state, start)?, known(&state, end)?) else {
            return Err(fail(NOT_READY, "an event that was not recorded"));
        };
        // SAFETY: the caller gives room.
        unsafe { put(milliseconds, end.at.saturating_duration_since(start.at).as_secs_f32() * 1e3) }
    })
}

/// The event is gone.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventDestroy_v2(event: Handle) -> i32 {
    answer(|| {
        let gone = crate::state::state()?.events.remove(&(event as usize));
        gone.map(|_| ()).ok_or_else(|| fail(INVALID_HANDLE, "no such event"))
    })
}
