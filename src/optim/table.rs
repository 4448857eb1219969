//! Where each parameter lies in the contiguous buffers, its group, and the work items of a step.

use std::ops::Range;

use crate::backend::{Real, simd_level};
use crate::graph::Graph;
use crate::ops::Layout;
use crate::{Error, ErrorKind, ParamInfo, Params, Result};

/// The longest run of elements that one thread handles alone: 16 Ki elements of three f32 buffers are 192 KiB, about
/// 10 µs of memory traffic, and fit a core's L2.
const PIECE: usize = 16 * 1024;

/// Below this many elements a step runs on the calling thread: waking another one costs more than it saves.
const SERIAL: usize = 64 * 1024;

/// One parameter, as the engine lays it out.
#[derive(Clone, Copy, Debug)]
pub struct ParamEntry<'a> {
    /// Its full name, such as `layers.0.weight`.
    pub name: &'a str,
    /// The index of its first element in the buffers.
    pub offset: usize,
    /// How many elements it has.
    pub len: usize,
    /// Whether the graph reads it. A parameter without a use is never touched, decay included.
    pub used: bool,
    /// Whether it is kept as it is.
    pub frozen: bool,
    /// Whether it belongs to a normalisation or is a bias: see [`ParamTable::decay_norm_and_bias`].
    pub norm_or_bias: bool,
    /// Inputs and outputs, `[inputs][outputs]`, where it is the weight of a linear layer or a convolution, whose inputs
    /// are all values under its window.
    pub matrix: Option<(usize, usize)>,
}

impl<'a> ParamEntry<'a> {
    /// A used parameter without a shape.
    pub fn vector(name: &'a str, offset: usize, len: usize) -> Self {
        ParamEntry { name, offset, len, used: true, frozen: false, norm_or_bias: false, matrix: None }
    }
}

impl<'a> From<&'a ParamInfo> for ParamEntry<'a> {
    fn from(info: &'a ParamInfo) -> Self {
        let matrix = match info.layout {
            Layout::Plain(_) => None,
            Layout::Conv { kernel: (h, w), cin, cout } => Some((h * w * cin, cout)),
            Layout::Linear { map: (h, w, c), outputs } => Some((h * w * c, outputs)),
        };
        let &ParamInfo { ref name, offset, len, used, frozen, norm_or_bias, .. } = info;
        ParamEntry { name, offset, len, used, frozen, norm_or_bias, matrix }
    }
}

/// Gives the parameters whose name matches `pattern` their own learning rate and weight decay.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupRule {
    /// A name in which `*` stands for any characters: `*.bias`, `head.*`, `*.bn.*`.
    pub pattern: String,
    /// Factor on the learning rate. At 0 they are kept as they are, as if frozen.
    pub lr_scale: f64,
    /// Weight decay instead of the optimizer's; `None` keeps that one.
    pub weight_decay: Option<f64>,
}

impl GroupRule {
    /// Whether `name` as a whole fits the pattern.
    ///
    /// ```
    /// use handgrad::optim::GroupRule;
    /// let rule = GroupRule { pattern: "*.bias".into(), lr_scale: 1.0, weight_decay: Some(0.0) };
    /// assert!(rule.matches("head.bias") && !rule.matches("head.bias_net.weight"));
    /// ```
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.pattern.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        // Between the fixed ends, taking the earliest place for each part leaves the most room for those after it.
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }

    fn check(&self) -> Result<()> {
        let subject = format!("optimizer group \"{}\"", self.pattern);
        let fine = |x: f64| x.is_finite() && x >= 0.0;
        if !fine(self.lr_scale) {
            let found = format!("lr_scale is {}", self.lr_scale);
            return Err(Error::new(ErrorKind::Usage, subject, found).expected("a finite number, 0 or more"));
        }
        match self.weight_decay {
            Some(wd) if !fine(wd) => Err(Error::new(ErrorKind::Usage, subject, format!("weight_decay is {wd}"))
                .expected("a finite number, 0 or more")),
            _ => Ok(()),
        }
    }
}

/// A run of elements of one parameter: the work item of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub offset: usize,
    pub len: usize,
    /// An index into [`ParamTable::groups`].
    pub group: usize,
}

impl Piece {
    fn end(&self) -> usize {
        self.offset + self.len
    }
}

/// One used parameter.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub offset: usize,
    pub len: usize,
    pub group: usize,
    /// See [`ParamEntry::matrix`].
    pub matrix: Option<(usize, usize)>,
    /// Its pieces among those of the table: none where it is kept as it is.
    pub pieces: Range<usize>,
}

/// The used parameters of a model, cut into pieces, with the group of each.
#[derive(Clone, Debug)]
pub struct ParamTable {
    places: Vec<Place>,
    pieces: Vec<Piece>,
    rules: Vec<GroupRule>,
    decay_norm_and_bias: bool,
    len: usize,
}

impl ParamTable {
    /// Lays out `entries` in buffers of `len` elements. The first rule whose pattern matches a name decides its group.
    ///
    /// # Errors
    /// `Shape` if an entry reaches outside the buffers or overlaps another; `Usage` for a rule with a negative or
    /// non-finite number, or one that matches no parameter (a misspelt pattern must not pass silently).
    pub fn new<'a>(
        entries: impl IntoIterator<Item = ParamEntry<'a>>,
        len: usize,
        rules: &[GroupRule],
    ) -> Result<ParamTable> {
        rules.iter().try_for_each(GroupRule::check)?;
        let mut entries: Vec<ParamEntry<'a>> = entries.into_iter().collect();
        entries.sort_by_key(|e| (e.offset, e.len));
        check_places(&entries, len)?;
        if let Some(rule) = rules.iter().find(|r| !entries.iter().any(|e| r.matches(e.name))) {
            let subject = format!("optimizer group \"{}\"", rule.pattern);
            return Err(Error::new(ErrorKind::Usage, subject, "matches no parameter of this model")
                .hint("`*` stands for any characters, as in \"*.bias\"; `handgrad summary` lists the parameters"));
        }
        let mut table = ParamTable {
            places: Vec::new(),
            pieces: Vec::new(),
            rules: rules.to_vec(),
            decay_norm_and_bias: true,
            len,
        };
        for e in entries.iter().filter(|e| e.used) {
            let rule = rules.iter().position(|r| r.matches(e.name)).map_or(0, |i| i + 1);
            let group = rule + if e.norm_or_bias { rules.len() + 1 } else { 0 };
            let first = table.pieces.len();
            let moves = !e.frozen && (rule == 0 || rules[rule - 1].lr_scale > 0.0);
            table.pieces.extend(cut(e, group).filter(|_| moves));
            let pieces = first..table.pieces.len();
            table.places.push(Place { offset: e.offset, len: e.len, group, matrix: e.matrix, pieces });
        }
        Ok(table)
    }

    /// The table of a model's parameters.
    ///
    /// # Errors
    /// As [`ParamTable::new`] for the rules.
    ///
    /// ```
    /// use handgrad::{Params, models, optim::ParamTable, rng::Key};
    /// let graph = models::build("simplenet", &Default::default())?;
    /// let params = Params::<f32>::new(&graph, Key::new(0))?;
    /// assert_eq!(ParamTable::of(&params, &[])?.used_len(), 123_330);
    /// # Ok::<(), handgrad::Error>(())
    /// ```
    pub fn of<E: Real>(params: &Params<E>, rules: &[GroupRule]) -> Result<ParamTable> {
        ParamTable::new(params.table().iter().map(ParamEntry::from), params.values().len(), rules)
    }

    /// The table of the parameters that a graph would have.
    ///
    /// # Errors
    /// As [`ParamTable::new`] for the rules.
    pub fn of_graph(graph: &Graph, rules: &[GroupRule]) -> Result<ParamTable> {
        let (infos, len) = crate::params::table_of(graph);
        ParamTable::new(infos.iter().map(ParamEntry::from), len, rules)
    }

    /// Whether weight decay covers parameters of normalisations and biases, as it does unless told otherwise. The
    /// decay that a matching rule states for them counts in any case.
    #[must_use]
    pub fn decay_norm_and_bias(self, decay: bool) -> Self {
        ParamTable { decay_norm_and_bias: decay, ..self }
    }

    /// The length of every buffer that goes with this table, in elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the buffers have no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many elements a step updates: those of frozen and unused parameters it does not.
    pub fn used_len(&self) -> usize {
        self.pieces.iter().map(|p| p.len).sum()
    }

    /// For each group the factor on the learning rate, and the weight decay: the default group, those of the rules,
    /// and then all of them once more for parameters of normalisations and biases.
    pub(super) fn groups(&self, weight_decay: f64) -> impl Iterator<Item = (f64, f64)> {
        let spared = if self.decay_norm_and_bias { weight_decay } else { 0.0 };
        [weight_decay, spared].into_iter().flat_map(|default| {
            let own = self.rules.iter().map(move |r| (r.lr_scale, r.weight_decay.unwrap_or(default)));
            std::iter::once((1.0, default)).chain(own)
        })
    }

    /// The used parameters, in the order of their offsets.
    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    /// How many pieces there are.
    pub(super) fn piece_count(&self) -> usize {
        self.pieces.len()
    }

    /// An error unless a buffer has this table's length.
    pub(super) fn check_len(&self, what: &str, len: usize) -> Result<()> {
        if len == self.len {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Shape, what, format!("{len} elements")).expected(format!("{} elements", self.len)))
    }
}

fn check_places(sorted: &[ParamEntry<'_>], len: usize) -> Result<()> {
    let mut end = 0;
    for e in sorted {
        let place = || format!("{} elements from {}", e.len, e.offset);
        if e.offset < end {
            return Err(Error::new(ErrorKind::Shape, e.name, place()).expected(format!("a start at {end} or later")));
        }
        end = match e.offset.checked_add(e.len) {
            Some(end) if end <= len => end,
            _ => return Err(Error::new(ErrorKind::Shape, e.name, place()).expected(format!("an end within {len}"))),
        };
        if let Some((inputs, outputs)) = e.matrix.filter(|(i, o)| i.checked_mul(*o) != Some(e.len)) {
            let expected = format!("as many as a matrix of {inputs} × {outputs} has");
            return Err(Error::new(ErrorKind::Shape, e.name, place()).expected(expected));
        }
    }
    Ok(())
}

fn cut(entry: &ParamEntry<'_>, group: usize) -> impl Iterator<Item = Piece> + use<> {
    let (start, end) = (entry.offset, entry.offset + entry.len);
    (start..end).step_by(PIECE).map(move |offset| Piece { offset, len: PIECE.min(end - offset), group })
}

/// Buffers of the same length that a step walks through together.
pub(super) trait Split: Send + Sized {
    /// The parts before and from element `at`.
    fn split(self, at: usize) -> (Self, Self);
}

impl<E: Sync> Split for &[E] {
    fn split(self, at: usize) -> (Self, Self) {
        self.split_at(at)
    }
}

impl<E: Send> Split for &mut [E] {
    fn split(self, at: usize) -> (Self, Self) {
        self.split_at_mut(at)
    }
}

impl<A: Split, B: Split> Split for (A, B) {
    fn split(self, at: usize) -> (Self, Self) {
        let ((a0, a1), (b0, b1)) = (self.0.split(at), self.1.split(at));
        ((a0, b0), (a1, b1))
    }
}

impl ParamTable {
    /// Calls `leaf` with each piece's part of the buffers and its group, and merges the results in the pieces' order.
    ///
    /// The pieces are halved until one is left; the tree depends on nothing else, so neither does the result.
    /// `None` if there are no pieces. The buffers have this table's length.
    pub(super) fn reduce<B: Split, T: Send>(
        &self,
        buffers: B,
        leaf: impl Fn(B, usize) -> T + Sync,
        merge: impl Fn(T, T) -> T + Sync,
    ) -> Option<T> {
        reduce(&self.pieces, buffers, 0, &leaf, &merge)
    }

    /// Calls `leaf` with each piece's part of the buffers and its group.
    pub(super) fn each<B: Split>(&self, buffers: B, leaf: impl Fn(B, usize) + Sync) {
        self.reduce(buffers, leaf, |(), ()| ());
    }

    /// [`ParamTable::each`] where each piece has a slot of its own to leave a result in.
    pub(super) fn each_with<B: Split, S: Send>(
        &self,
        buffers: B,
        slots: &mut [S],
        leaf: impl Fn(B, usize, &mut S) + Sync,
    ) {
        each_with(&self.pieces, buffers, 0, slots, &leaf);
    }
}

crate::multiversion! {
    /// `work(part)`, whose loops are compiled for each SIMD level. They fuse nothing and sum in a fixed order, so that
    /// the level changes no bit.
    pub(super) fn at_level<A: Sized, T: Sized, F: FnOnce(A) -> T>(work: F, part: A) -> T {
        work(part)
    }
}

/// [`ParamTable::reduce`] on buffers whose first element has index `start` in the whole.
fn reduce<B: Split, T: Send>(
    pieces: &[Piece],
    buffers: B,
    start: usize,
    leaf: &(impl Fn(B, usize) -> T + Sync),
    merge: &(impl Fn(T, T) -> T + Sync),
) -> Option<T> {
    match pieces {
        [] => None,
        [piece] => {
            let leaf = |part| leaf(part, piece.group);
            Some(at_level(simd_level(), leaf, own_part(piece, buffers, start)))
        }
        [_, .., _] => {
            let (a, b) = pieces.split_at(pieces.len() / 2);
            let middle = b[0].offset;
            let (left, right) = buffers.split(middle - start);
            let on_left = || reduce(a, left, start, leaf, merge);
            let on_right = || reduce(b, right, middle, leaf, merge);
            let (left, right) = both(pieces, on_left, on_right);
            Some(merge(left?, right?))
        }
    }
}

/// [`ParamTable::each_with`] on buffers whose first element has index `start` in the whole.
fn each_with<B: Split, S: Send>(
    pieces: &[Piece],
    buffers: B,
    start: usize,
    slots: &mut [S],
    leaf: &(impl Fn(B, usize, &mut S) + Sync),
) {
    match pieces {
        [] => {}
        [piece] => {
            let leaf = |part| leaf(part, piece.group, &mut slots[0]);
            at_level(simd_level(), leaf, own_part(piece, buffers, start));
        }
        [_, .., _] => {
            let (a, b) = pieces.split_at(pieces.len() / 2);
            let middle = b[0].offset;
            let (left, right) = buffers.split(middle - start);
            let (left_slots, right_slots) = slots.split_at_mut(a.len());
            let on_left = || each_with(a, left, start, left_slots, leaf);
            let on_right = || each_with(b, right, middle, right_slots, leaf);
            both(pieces, on_left, on_right);
        }
    }
}

/// A piece's part of buffers whose first element has index `start` in the whole.
fn own_part<B: Split>(piece: &Piece, buffers: B, start: usize) -> B {
    let (_, from_piece) = buffers.split(piece.offset - start);
    from_piece.split(piece.len).0
}

/// Both halves of `pieces`, on two threads where that is worth it.
fn both<A: Send, B: Send>(
    pieces: &[Piece],
    left: impl FnOnce() -> A + Send,
    right: impl FnOnce() -> B + Send,
) -> (A, B) {
    let span = pieces.last().map_or(0, Piece::end) - pieces.first().map_or(0, |first| first.offset);
    if span > SERIAL { rayon::join(left, right) } else { (left(), right()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, offset: usize, len: usize) -> ParamEntry<'_> {
        ParamEntry::vector(name, offset, len)
    }

    fn rule(pattern: &str) -> GroupRule {
        GroupRule { pattern: pattern.into(), lr_scale: 1.0, weight_decay: None }
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, fits) in [
            ("*.bias", "a.bias", true),
            ("*.bias", "bias", false),
            ("head.*", "head.weight", true),
            ("head.*", "ahead.weight", false),
            ("*bn*", "layers.1.bn.weight", true),
            ("*bn*", "layers.1.conv.weight", false),
            ("a*b*b", "ab", false),
            ("a*b*b", "abb", true),
            ("a*b*b", "a1b2b", true),
            ("*", "anything", true),
            ("", "anything", false),
            ("w", "w", true),
            ("w", "ww", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(rule(pattern).matches(name), fits, "{pattern} on {name}");
        }
    }

    #[test]
    fn pieces_cover_the_used_parameters_and_nothing_else() {
        let unused = ParamEntry { used: false, ..entry("b", PIECE + 7, 5) };
        let entries = [entry("c", PIECE + 20, 2 * PIECE), unused, entry("a", 0, PIECE + 1)];
        let table = ParamTable::new(entries, 4 * PIECE, &[rule("c")]).unwrap();
        let expected: Vec<Piece> = [(0, PIECE, 0), (PIECE, 1, 0), (PIECE + 20, PIECE, 1), (2 * PIECE + 20, PIECE, 1)]
            .map(|(offset, len, group)| Piece { offset, len, group })
            .to_vec();
        assert_eq!(table.pieces, expected);
        assert_eq!(table.used_len(), 3 * PIECE + 1);
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let rules = [rule("a.bias"), rule("*.bias")];
        let table = ParamTable::new([entry("a.bias", 0, 1), entry("b.bias", 1, 1)], 2, &rules).unwrap();
        assert_eq!(table.pieces.iter().map(|p| p.group).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn norms_and_biases_are_spared_unless_a_rule_says_otherwise() {
        let norm = |name, offset| ParamEntry { norm_or_bias: true, ..entry(name, offset, 1) };
        let rules = [GroupRule { weight_decay: Some(0.5), ..rule("b*") }, GroupRule { lr_scale: 2.0, ..rule("c*") }];
        let entries = [entry("a", 0, 1), norm("an", 1), norm("bn", 2), entry("c", 3, 1), norm("cn", 4)];
        let table = ParamTable::new(entries, 5, &rules).unwrap();
        let settings = |table: &ParamTable| -> Vec<(f64, f64)> {
            let groups: Vec<_> = table.groups(0.1).collect();
            table.places().iter().map(|place| groups[place.group]).collect()
        };
        assert_eq!(settings(&table), [(1.0, 0.1), (1.0, 0.1), (1.0, 0.5), (2.0, 0.1), (2.0, 0.1)]);
        let spared = table.decay_norm_and_bias(false);
        assert_eq!(settings(&spared), [(1.0, 0.1), (1.0, 0.0), (1.0, 0.5), (2.0, 0.1), (2.0, 0.0)]);
    }

    #[test]
    fn every_piece_gets_its_own_slot() {
        let len = 9 * PIECE + 5;
        let entries = [entry("a", 3, 4 * PIECE), entry("b", 5 * PIECE, 4 * PIECE + 5)];
        let table = ParamTable::new(entries, len, &[rule("b")]).unwrap();
        let values: Vec<usize> = (0..len).collect();
        let mut slots = vec![(0, 0, 0); table.piece_count()];
        table.each_with(&values[..], &mut slots, |own, group, slot| *slot = (own[0], own.len(), group));
        let expected: Vec<_> = table.pieces.iter().map(|p| (p.offset, p.len, p.group)).collect();
        assert_eq!(slots, expected);
        assert_eq!(table.places().iter().map(|p| p.pieces.clone()).collect::<Vec<_>>(), [0..4, 4..9]);
    }

    #[test]
    fn bad_layouts_and_rules_are_errors() {
        let kind = |entries: &[ParamEntry<'_>], rules: &[GroupRule]| {
            ParamTable::new(entries.iter().copied(), 8, rules).unwrap_err().kind()
        };
        assert_eq!(kind(&[entry("a", 0, 9)], &[]), ErrorKind::Shape);
        assert_eq!(kind(&[entry("a", 1, usize::MAX)], &[]), ErrorKind::Shape);
        assert_eq!(kind(&[entry("a", 0, 4), entry("b", 3, 2)], &[]), ErrorKind::Shape);
        let a = [entry("a", 0, 8)];
        assert_eq!(kind(&[ParamEntry { matrix: Some((3, 2)), ..a[0] }], &[]), ErrorKind::Shape);
        assert_eq!(kind(&a, &[rule("b*")]), ErrorKind::Usage);
        assert_eq!(kind(&a, &[GroupRule { lr_scale: f64::NAN, ..rule("a") }]), ErrorKind::Usage);
        assert_eq!(kind(&a, &[GroupRule { weight_decay: Some(-1.0), ..rule("a") }]), ErrorKind::Usage);
    }
}
