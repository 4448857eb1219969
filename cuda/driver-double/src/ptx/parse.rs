//! Tokens to the tree.

use super::token::{Spanned, Token, tokens};
use super::{Arg, Function, Instr, Ptx, PtxError, Space, Stmt, Ty, Var};

type Res<T> = Result<T, PtxError>;

/// Reads a whole module.
pub(crate) fn parse(text: &str) -> Res<Ptx> {
    let mut reader = Reader { tokens: tokens(text)?, at: 0 };
    let mut ptx = Ptx { target: 0, vars: Vec::new(), functions: Vec::new() };
    let mut version = false;
    while let Some(word) = reader.peek_word() {
        match word.as_str() {
            ".version" => {
                reader.at += 2;
                version = true;
            }
            ".target" => {
                reader.at += 1;
                let name = reader.word()?;
                let digits: String = name.chars().filter(char::is_ascii_digit).collect();
                ptx.target = digits.parse().map_err(|_| reader.error(format!("target {name:?} is no sm_NN")))?;
                while reader.eat(',') {
                    reader.word()?;
                }
            }
            ".address_size" => {
                reader.at += 1;
                let size = reader.int()?;
                if size != 64 {
                    return Err(reader.error(format!("address_size {size}: only 64 is supported")));
                }
            }
            ".file" | ".section" => {
                return Err(reader
                    .error(format!("{word}: debug information is not supported; compile without -G and -lineinfo")));
            }
            ".visible" | ".extern" | ".weak" | ".common" => reader.at += 1,
            ".entry" | ".func" => {
                let function = reader.function()?;
                ptx.functions.push(function);
            }
            ".global" | ".const" | ".shared" => {
                let vars = reader.variables()?;
                ptx.vars.extend(vars);
            }
            _ => return Err(reader.error(format!("{word:?} is unexpected outside of a function"))),
        }
    }
    if reader.at < reader.tokens.len() {
        return Err(reader.error("unexpected text outside of a function".to_owned()));
    }
    if !version || ptx.target == 0 {
        return Err(PtxError::new(0, "no .version or no .target: this is no PTX text"));
    }
    Ok(ptx)
}

struct Reader {
    tokens: Vec<Spanned>,
    at: usize,
}

impl Reader {
    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(0, |t| t.line)
    }

    fn error(&self, what: String) -> PtxError {
        PtxError::new(self.line(), what)
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|t| &t.token)
    }

    fn peek_word(&self) -> Option<String> {
        match self.peek() {
            Some(Token::Word(word)) => Some(word.clone()),
            _ => None,
        }
    }

    fn is(&self, mark: char) -> bool {
        self.peek() == Some(&Token::Mark(mark))
    }

    fn eat(&mut self, mark: char) -> bool {
        let there = self.is(mark);
        self.at += usize::from(there);
        there
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let there = matches!(self.peek(), Some(Token::Word(w)) if w == word);
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, mark: char) -> Res<()> {
        if self.eat(mark) { Ok(()) } else { Err(self.error(format!("expected {mark:?}, found {:?}", self.peek()))) }
    }

    fn word(&mut self) -> Res<String> {
        match self.peek_word() {
            Some(word) => {
                self.at += 1;
                Ok(word)
            }
            None => Err(self.error(format!("expected a name, found {:?}", self.peek()))),
        }
    }

    fn int(&mut self) -> Res<u64> {
        let negative = self.eat('-');
        match self.peek() {
            Some(Token::Int(value)) => {
                let value = *value;
                self.at += 1;
                Ok(if negative { value.wrapping_neg() } else { value })
            }
            found => Err(self.error(format!("expected a whole number, found {found:?}"))),
        }
    }

    /// `.entry name (params) directives { body }` or `.func (results) name (params) …`
    fn function(&mut self) -> Res<Function> {
        let entry = self.word()? == ".entry";
        let results = if self.is('(') { self.parameters()? } else { Vec::new() };
        let line = self.line();
        let name = self.word()?;
        let params = if self.is('(') { self.parameters()? } else { Vec::new() };
        let mut max_threads = None;
        loop {
            if self.eat(';') {
                return Ok(Function { entry, name, line, results, params, body: None, max_threads });
            }
            if self.is('{') {
                break;
            }
            let directive = self.word()?;
            let mut values = Vec::new();
            while !self.is('{') && !self.is(';') && !matches!(self.peek(), Some(Token::Word(_)) | None) {
                if matches!(self.peek(), Some(Token::Int(_))) {
                    values.push(self.int()?);
                } else {
                    self.at += 1;
                }
            }
            if directive == ".maxntid" || directive == ".reqntid" {
                max_threads = Some(values.iter().product::<u64>().min(1024) as u32);
            }
        }
        let body = Some(self.body()?);
        Ok(Function { entry, name, line, results, params, body, max_threads })
    }

    fn parameters(&mut self) -> Res<Vec<Var>> {
        self.expect('(')?;
        let mut found = Vec::new();
        while !self.eat(')') {
            let word = self.word()?;
            if word != ".param" && word != ".reg" {
                return Err(self.error(format!("expected .param, found {word:?}")));
            }
            if word == ".reg" {
                return Err(self.error("parameters in registers are not supported".to_owned()));
            }
            found.push(self.variable(Space::Param)?);
            self.eat(',');
        }
        Ok(found)
    }

    /// One statement `.global .align 4 .b8 a[4] = {…}, b;`, at its space.
    fn variables(&mut self) -> Res<Vec<Var>> {
        let space = match self.word()?.as_str() {
            ".global" => Space::Global,
            ".const" => Space::Const,
            ".shared" => Space::Shared,
            ".local" => Space::Local,
            ".param" => Space::Param,
            other => return Err(self.error(format!("{other:?} is no space"))),
        };
        let var = self.variable(space)?;
        self.expect(';')?;
        Ok(vec![var])
    }

    fn variable(&mut self, space: Space) -> Res<Var> {
        let (mut align, mut ty, mut vector) = (0usize, None, 1);
        loop {
            let word = self.word()?;
            match word.as_str() {
                ".align" => align = self.int()? as usize,
                ".v2" => vector = 2,
                ".v4" => vector = 4,
                ".ptr" | ".attribute" => {}
                ".global" | ".const" | ".shared" | ".local" => {}
                _ if word.starts_with('.') => {
                    ty = Some(Ty::of(&word[1..]).ok_or_else(|| self.error(format!("{word:?} is no type")))?)
                }
                _ => {
                    let ty = ty.ok_or_else(|| self.error(format!("{word} has no type")))?;
                    return self.array(space, word, ty, vector, align);
                }
            }
        }
    }

    fn array(&mut self, space: Space, name: String, ty: Ty, vector: usize, align: usize) -> Res<Var> {
        let mut count = Some(vector);
        while self.eat('[') {
            if self.eat(']') {
                count = None;
                continue;
            }
            let n = usize::try_from(self.int()?).map_err(|_| self.error(format!("{name} is too large")))?;
            count = match count {
                Some(c) => Some(c.checked_mul(n).ok_or_else(|| self.error(format!("{name} is too large")))?),
                None => None,
            };
            self.expect(']')?;
        }
        let (mut init, mut addresses) = (Vec::new(), Vec::new());
        let initialised = self.eat('=');
        if initialised {
            self.initial(ty, &mut init, &mut addresses)?;
        }
        let size = match count {
            Some(c) => Some(
                c.checked_mul(ty.bytes())
                    .filter(|s| *s <= 1 << 32)
                    .ok_or_else(|| self.error(format!("{name} is too large")))?,
            ),
            None if initialised => Some(init.len()),
            None => None,
        };
        if size.is_some_and(|s| init.len() > s) {
            return Err(self.error(format!("{name}: more initial values than elements")));
        }
        Ok(Var { space, name, align: align.max(ty.bytes()), size, init, addresses, initialised })
    }

    fn initial(&mut self, ty: Ty, init: &mut Vec<u8>, addresses: &mut Vec<(usize, String)>) -> Res<()> {
        if self.eat('{') {
            while !self.eat('}') {
                self.initial(ty, init, addresses)?;
                self.eat(',');
            }
            return Ok(());
        }
        let value = match self.peek() {
            Some(Token::F32(bits)) => u64::from(*bits),
            Some(Token::F64(bits)) => *bits,
            Some(Token::Word(word)) => {
                let mut name = word.clone();
                if name == "generic" {
                    self.at += 1;
                    self.expect('(')?;
                    name = self.word()?;
                    self.at -= 1;
                }
                addresses.push((init.len(), name));
                self.at += 1;
                self.eat(')');
                init.extend_from_slice(&[0; 8]);
                return Ok(());
            }
            _ => {
                let value = self.int()?;
                self.at -= 1;
                value
            }
        };
        self.at += 1;
        init.extend_from_slice(&value.to_le_bytes()[..ty.bytes()]);
        Ok(())
    }

    fn body(&mut self) -> Res<Vec<Stmt>> {
        self.expect('{')?;
        let (mut found, mut depth) = (Vec::new(), 0);
        loop {
            if self.eat('{') {
                depth += 1;
                found.push(Stmt::Open);
                continue;
            }
            if self.eat('}') {
                if depth == 0 {
                    return Ok(found);
                }
                depth -= 1;
                found.push(Stmt::Close);
                continue;
            }
            if self.eat(';') {
                continue;
            }
            if self.is('@') {
                found.push(Stmt::Instr(self.instruction()?));
                continue;
            }
            let word = self
                .peek_word()
                .ok_or_else(|| self.error(format!("expected an instruction, found {:?}", self.peek())))?;
            if self.tokens.get(self.at + 1).map(|t| &t.token) == Some(&Token::Mark(':')) {
                self.at += 2;
                if self.eat_word(".branchtargets") {
                    let mut labels = Vec::new();
                    while !self.eat(';') {
                        labels.push(self.word()?);
                        self.eat(',');
                    }
                    found.push(Stmt::Targets(word, labels));
                } else {
                    found.push(Stmt::Label(word));
                }
                continue;
            }
            match word.as_str() {
                ".reg" => self.registers(&mut found)?,
                ".shared" | ".local" | ".param" | ".global" | ".const" => {
                    found.extend(self.variables()?.into_iter().map(Stmt::Var))
                }
                ".extern" => self.at += 1,
                ".pragma" => {
                    while !self.eat(';') {
                        self.at += 1;
                        if self.at >= self.tokens.len() {
                            return Err(self.error("a pragma without an end".to_owned()));
                        }
                    }
                }
                ".loc" => return Err(self.error(".loc: compile without -lineinfo".to_owned())),
                _ => found.push(Stmt::Instr(self.instruction()?)),
            }
        }
    }

    fn registers(&mut self, found: &mut Vec<Stmt>) -> Res<()> {
        self.at += 1;
        let word = self.word()?;
        let ty = Ty::of(word.trim_start_matches('.'))
            .ok_or_else(|| self.error(format!("{word:?} is no type of a register")))?;
        while !self.eat(';') {
            let name = self.word()?;
            let mut count = None;
            if self.eat('<') {
                count = Some(self.int()?.min(1 << 20) as u32);
                self.expect('>')?;
            }
            found.push(Stmt::Reg { ty, name, count });
            self.eat(',');
        }
        Ok(())
    }

    fn instruction(&mut self) -> Res<Instr> {
        let mut guard = None;
        if self.eat('@') {
            let negated = self.eat('!');
            guard = Some((self.word()?, negated));
        }
        let line = self.line();
        let mut op = vec![self.word()?];
        while let Some(word) = self.peek_word().filter(|w| w.starts_with('.')) {
            op.push(word[1..].to_owned());
            self.at += 1;
            // `.shared::cta` says the same as `.shared`.
            while self.eat(':') {
                if !self.is(':') {
                    let scope = self.word()?;
                    if scope != "cta" {
                        op.push(format!("::{scope}"));
                    }
                }
            }
        }
        let mut args = Vec::new();
        while !self.eat(';') {
            args.push(self.argument()?);
            if !self.is(';') {
                self.expect(',')?;
            }
        }
        Ok(Instr { line, guard, op, args })
    }

    fn argument(&mut self) -> Res<Arg> {
        if self.eat('{') {
            return Ok(Arg::Vector(self.list('}')?));
        }
        if self.eat('(') {
            return Ok(Arg::List(self.list(')')?));
        }
        if self.eat('!') {
            return Ok(Arg::Not(self.word()?));
        }
        if self.eat('[') {
            let base = match self.peek() {
                Some(Token::Word(_)) => Some(self.word()?),
                _ => None,
            };
            let mut offset = 0i64;
            if base.is_none() || self.eat('+') || self.is('-') {
                offset = self.int()? as i64;
            }
            self.expect(']')?;
            return Ok(Arg::Address(base, offset));
        }
        let negative = self.eat('-');
        let arg = match self.peek() {
            Some(Token::Int(v)) => Arg::Int(if negative { v.wrapping_neg() } else { *v }),
            Some(Token::F32(v)) => Arg::F32(if negative { v ^ 1 << 31 } else { *v }),
            Some(Token::F64(v)) => Arg::F64(if negative { v ^ 1 << 63 } else { *v }),
            Some(Token::Word(w))
                if w == "_" && self.tokens.get(self.at + 1).map(|t| &t.token) != Some(&Token::Mark('|')) =>
            {
                Arg::Sink
            }
            Some(Token::Word(w)) => {
                let mut name = w.clone();
                // `%tid` `.x`: one name.
                if let Some(Token::Word(part)) = self.tokens.get(self.at + 1).map(|t| &t.token)
                    && matches!(part.as_str(), ".x" | ".y" | ".z" | ".w")
                {
                    name.push_str(part);
                    self.at += 1;
                }
                Arg::Name(name)
            }
            found => return Err(self.error(format!("expected an operand, found {found:?}"))),
        };
        self.at += 1;
        match arg {
            Arg::Name(a) if self.eat('|') => Ok(Arg::Pair(a, self.word()?)),
            Arg::Name(a) if self.eat('+') => Ok(Arg::Offset(a, self.int()? as i64)),
            arg => Ok(arg),
        }
    }

    fn list(&mut self, end: char) -> Res<Vec<Arg>> {
        let mut found = Vec::new();
        while !self.eat(end) {
            found.push(self.argument()?);
            if !self.is(end) {
                self.expect(',')?;
            }
        }
        Ok(found)
    }
}
