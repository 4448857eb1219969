//! In which order an epoch visits the samples.

use super::dataset::Dataset;
use super::format::Split;
use crate::rng::Key;
use crate::{Error, ErrorKind, Result};

/// The order of an epoch. Each is a function of (seed, run, epoch) alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffle {
    /// The order of the file: for evaluation.
    No,
    /// Every permutation equally likely.
    Full,
    /// For sets larger than memory: the pages are visited in random order, `window` of them at a time, and the
    /// samples within a window are shuffled. The disk reads whole pages, once per epoch; a larger window mixes
    /// better and needs more memory (window × page size).
    Pages {
        /// Pages whose samples are mixed; at least 1.
        window: usize,
    },
}

/// The samples of a split and how they lie in pages.
pub(crate) struct Sampler {
    samples: Vec<u32>,
    shuffle: Shuffle,
    /// For [`Shuffle::Pages`]: where in `samples` each page begins, and the end.
    page_starts: Vec<u32>,
}

impl Sampler {
    pub fn new(dataset: &Dataset, split: Split, shuffle: Shuffle) -> Result<Self> {
        let mut samples = dataset.split(split).to_vec();
        let mut page_starts = Vec::new();
        if let Shuffle::Pages { window } = shuffle {
            if window == 0 {
                return Err(Error::new(ErrorKind::Usage, "window", "0 pages").expected("at least 1"));
            }
            let mut pages = Vec::with_capacity(samples.len());
            for &i in &samples {
                pages.push((dataset.page_of(i as usize)?, i));
            }
            // Already in order for files of our writer; stable, so the file's order decides within a page.
            pages.sort_by_key(|&(page, _)| page);
            for (at, pair) in pages.iter().enumerate() {
                if at == 0 || pages[at - 1].0 != pair.0 {
                    page_starts.push(at as u32);
                }
            }
            page_starts.push(pages.len() as u32);
            samples = pages.into_iter().map(|(_, i)| i).collect();
        }
        Ok(Sampler { samples, shuffle, page_starts })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// The samples of the epoch that `key` names, in order.
    pub fn epoch(&self, key: Key) -> Vec<u32> {
        match self.shuffle {
            Shuffle::No => self.samples.clone(),
            Shuffle::Full => {
                let mut order = self.samples.clone();
                key.with_name("samples").stream().shuffle(&mut order);
                order
            }
            Shuffle::Pages { window } => self.page_wise(key, window),
        }
    }

    fn page_wise(&self, key: Key, window: usize) -> Vec<u32> {
        let mut pages: Vec<&[u32]> =
            self.page_starts.windows(2).map(|ends| &self.samples[ends[0] as usize..ends[1] as usize]).collect();
        key.with_name("pages").stream().shuffle(&mut pages);
        let mut order = Vec::with_capacity(self.samples.len());
        for (i, group) in pages.chunks(window).enumerate() {
            let start = order.len();
            group.iter().for_each(|page| order.extend_from_slice(page));
            key.with_name("window").with(i as u64).stream().shuffle(&mut order[start..]);
        }
        order
    }
}
