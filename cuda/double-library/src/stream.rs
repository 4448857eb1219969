//! Streams and events: work is done when it is asked for, so that waiting has nothing to wait for.

use std::ffi::{c_int, c_uint, c_void};
use std::time::Instant;

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

/// Gives the fault of a kernel, if there was one.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(stream: Handle) -> i32 {
    answer(|| working()?.stream(stream))
}

/// As [`cuStreamSynchronize`].
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamQuery(stream: Handle) -> i32 {
    cuStreamSynchronize(stream)
}

/// The stream is gone.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(stream: Handle) -> i32 {
    answer(|| {
        let gone = crate::state::state()?.streams.remove(&(stream as usize));
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

/// Checks its handles.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWaitEvent(stream: Handle, event: Handle, _flags: c_uint) -> i32 {
    answer(|| {
        let state = working()?;
        state.stream(stream)?;
        known(&state, event).map(|_| ())
    })
}

/// Calls the function at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchHostFunc(
    stream: Handle,
    function: Option<unsafe extern "C" fn(*mut c_void)>,
    data: *mut c_void,
) -> i32 {
    answer(|| {
        // The lock is not held meanwhile: the function may not call the driver, but it may take its time.
        working()?.stream(stream)?;
        if let Some(function) = function {
            // SAFETY: the caller's function, with the caller's data.
            unsafe { function(data) };
        }
        Ok(())
    })
}

fn known(state: &crate::state::State, event: Handle) -> Result<Option<Instant>, i32> {
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

/// Now.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(event: Handle, stream: Handle) -> i32 {
    answer(|| {
        let mut state = working()?;
        state.stream(stream)?;
        known(&state, event)?;
        state.events.insert(event as usize, Some(Instant::now()));
        Ok(())
    })
}

/// It is over.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventSynchronize(event: Handle) -> i32 {
    answer(|| known(&*working()?, event).map(|_| ()))
}

/// It is over.
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
        unsafe { put(milliseconds, end.saturating_duration_since(start).as_secs_f32() * 1e3) }
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
