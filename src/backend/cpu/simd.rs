//! SIMD levels: what this machine can do, found at run time, and loops compiled once per level.

use crate::{Error, ErrorKind, Result};
use std::sync::OnceLock;

/// The environment variable that forces a lower level: `portable`, `avx2` or `avx512`.
pub const LEVEL_VARIABLE: &str = "HANDGRAD_SIMD";

/// An instruction set that kernels exist for, from slow to fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// What every machine of the target architecture has (SSE2 on x86-64, NEON on aarch64).
    Portable,
    /// AVX2 with fused multiply-add: 8 floats at once.
    Avx2,
    /// AVX-512 F, BW, DQ and VL: 16 floats at once.
    Avx512,
}

impl Level {
    /// Every level, slowest first.
    pub const ALL: [Level; 3] = [Level::Portable, Level::Avx2, Level::Avx512];

    /// The name that [`LEVEL_VARIABLE`] and run folders use.
    pub fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }

    /// Whether this machine (and its operating system) can run the level.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = || {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            };
            match self {
                Level::Portable => true,
                Level::Avx2 => avx2(),
                Level::Avx512 => avx2() && avx512(),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Level::Portable
        }
    }

    /// The fastest level of this machine.
    pub fn best() -> Level {
        Level::ALL.into_iter().rev().find(|l| l.is_available()).unwrap_or(Level::Portable)
    }

    /// The level that a user asked for by name; `None` or an empty text means the best one.
    ///
    /// # Errors
    /// `Usage` for an unknown name, `Unsupported` for a level that this machine lacks.
    pub fn from_request(request: Option<&str>) -> Result<Level> {
        let Some(name) = request.filter(|r| !r.is_empty()) else { return Ok(Level::best()) };
        let level = Level::ALL
            .into_iter()
            .find(|l| l.name() == name)
            .ok_or_else(|| Error::new(ErrorKind::Usage, LEVEL_VARIABLE, name).expected("portable, avx2 or avx512"))?;
        if level.is_available() {
            return Ok(level);
        }
        Err(Error::new(ErrorKind::Unsupported, LEVEL_VARIABLE, format!("{name}, which this machine lacks"))
            .expected(format!("at most {}", Level::best().name()))
            .hint("leave the variable unset to get the fastest level"))
    }

    /// The level of this process: the best one, or what [`LEVEL_VARIABLE`] asks for. Read once.
    ///
    /// # Errors
    /// As [`Level::from_request`].
    pub fn current() -> Result<Level> {
        static LEVEL: OnceLock<Level> = OnceLock::new();
        if let Some(&level) = LEVEL.get() {
            return Ok(level);
        }
        let request = std::env::var_os(LEVEL_VARIABLE);
        let level = Level::from_request(request.as_ref().map(|r| r.to_string_lossy()).as_deref())?;
        Ok(*LEVEL.get_or_init(|| level))
    }
}

/// The levels that this machine can run, slowest first: what tests loop over.
pub fn levels_available() -> impl Iterator<Item = Level> {
    Level::ALL.into_iter().filter(|l| l.is_available())
}

/// Compiles a loop once per [`Level`], so that the compiler vectorises it for each, and picks one at run time.
///
/// The function gets the level as an extra first argument. Its body must be plain safe code (loops over slices);
/// what it calls has to be `#[inline(always)]` to be compiled for the level as well. A level that the machine lacks
/// panics: levels come from [`Level::current`] or [`levels_available`], which never give one.
///
/// ```
/// handgrad::multiversion! {
///     /// y ← y + a·x.
///     fn axpy(a: f32, x: &[f32], y: &mut [f32]) {
///         for (y, x) in y.iter_mut().zip(x) {
///             *y += a * x;
///         }
///     }
/// }
/// use handgrad::backend::cpu::simd::Level;
/// let mut y = [1.0; 4];
/// axpy(Level::best(), 2.0, &[1.0; 4], &mut y);
/// assert_eq!(y, [3.0; 4]);
/// ```
#[macro_export]
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$($generic:ident: $bound:path),+>)? (
        $($arg:ident: $type:ty),* $(,)?
    ) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name $(<$($generic: $bound),+>)? (
            level: $crate::backend::cpu::simd::Level, $($arg: $type),*
        ) $(-> $result)? {
            #[allow(clippy::too_many_arguments)]
            #[inline(always)]
            fn body $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                use $crate::backend::cpu::simd::Level;
                #[allow(clippy::too_many_arguments)]
                #[target_feature(enable = "avx2,fma")]
                fn avx2 $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $result)? {
                    body($($arg),*)
                }
                #[allow(clippy::too_many_arguments)]
                #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512 $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $result)? {
                    body($($arg),*)
                }
                if level != Level::Portable {
                    assert!(level.is_available(), "this machine lacks {}", level.name());
                }
                match level {
                    Level::Portable => body($($arg),*),
                    // SAFETY: the assertion above says that the machine has these instructions.
                    Level::Avx2 => unsafe { avx2($($arg),*) },
                    // SAFETY: as for AVX2.
                    Level::Avx512 => unsafe { avx512($($arg),*) },
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            {
                assert!(level.is_available(), "this machine lacks {}", level.name());
                body($($arg),*)
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::multiversion! {
        /// Σ (x + y), in order, with a generic argument.
        fn total<T: Into<f32>>(values: &[f32], y: T) -> f32 {
            let y = y.into();
            values.iter().map(|x| x + y).sum()
        }
    }

    #[test]
    fn every_level_runs_a_loop() {
        for level in levels_available() {
            assert_eq!(total(level, &[1.0, 2.0, 3.0], 1i8), 9.0);
        }
    }

    #[test]
    fn requests_are_checked() {
        assert_eq!(Level::from_request(None).unwrap(), Level::best());
        assert_eq!(Level::from_request(Some("")).unwrap(), Level::best());
        assert_eq!(Level::from_request(Some("portable")).unwrap(), Level::Portable);
        assert_eq!(Level::from_request(Some("sse9")).unwrap_err().kind(), ErrorKind::Usage);
        for level in Level::ALL.into_iter().filter(|l| !l.is_available()) {
            assert_eq!(Level::from_request(Some(level.name())).unwrap_err().kind(), ErrorKind::Unsupported);
        }
    }
}
