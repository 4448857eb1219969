//! What the sources of the kernels say: comments, C signatures, structs.

use std::path::Path;

/// A module's source with the files that it includes.
pub struct Source {
    /// The comment that it begins with.
    pub head: String,
    text: String,
    /// The same in one line.
    flat: String,
}

/// A parameter in C.
pub struct Parameter {
    pub kind: String,
    pub name: String,
}

fn with_includes(folder: &Path, file: &str) -> String {
    let text = std::fs::read_to_string(folder.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    let included = text.lines().filter_map(|line| line.strip_prefix("#include \"")?.strip_suffix('"'));
    let included: Vec<String> = included.map(|file| with_includes(folder, file)).collect();
    included.concat() + &text
}

impl Source {
    pub fn of(module: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda");
        let (own, text) = (format!("{module}.cu"), with_includes(&folder, &format!("{module}.cu")));
        let own = std::fs::read_to_string(folder.join(own)).expect("it was read before");
        let head: Vec<&str> = own.lines().take_while(|line| line.starts_with("//")).collect();
        let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
        let flat = code.join(" ").replace('\\', " ").split_whitespace().collect::<Vec<_>>().join(" ");
        // The lines of a comment keep their indentation: formulas are laid out with it.
        let head = head.iter().map(|line| line.trim_start_matches("//")).map(|l| l.strip_prefix(' ').unwrap_or(l));
        Source { head: head.collect::<Vec<_>>().join("\n"), text, flat }
    }

    fn definition(&self, kernel: &str) -> Option<&str> {
        let (_, rest) = self.flat.split_once(&format!(" {kernel}("))?;
        let (list, rest) = rest.split_once(')')?;
        rest.trim_start().starts_with('{').then_some(list)
    }

    /// The list of parameters where a macro makes the kernel: by a part of its name, or by all of it.
    fn of_macro(&self, kernel: &str) -> Option<&str> {
        for (at, _) in self.flat.match_indices("##") {
            let start = self.flat[..at].rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |i| i + 1);
            let (token, rest) = self.flat[start..].split_once('(')?;
            let mut parts = token.split("##");
            let (before, after) = (parts.next()?, parts.nth(1).unwrap_or_default());
            if !token.contains(' ') && kernel.starts_with(before) && kernel.ends_with(after) {
                return rest.split_once(')').map(|(list, _)| list);
            }
        }
        let at = self.flat.find(&format!("({kernel},"))?;
        let start = self.flat[..at].rfind(' ').map_or(0, |i| i + 1);
        let (_, body) = self.flat.split_once(&format!("#define {}(", &self.flat[start..at]))?;
        let name = body.split(',').next()?;
        let (_, rest) = body.split_once(&format!(" {name}("))?;
        rest.split_once(')').map(|(list, _)| list)
    }

    /// A kernel's parameters in C.
    pub fn parameters(&self, kernel: &str) -> Option<Vec<Parameter>> {
        let list = self.definition(kernel).or_else(|| self.of_macro(kernel))?;
        let parameter = |text: &str| {
            let text = text.replace("__restrict__", "");
            let at = text.trim_end().rfind([' ', '*'])?;
            Some(Parameter { kind: text[..=at].trim().to_owned(), name: text[at + 1..].trim().to_owned() })
        };
        list.split(',').map(parameter).collect()
    }

    /// The definition of a struct, with the comment above it.
    pub fn structure(&self, name: &str) -> Option<String> {
        let at = self.text.find(&format!("struct {name} {{"))?;
        let (before, rest) = (&self.text[..at], &self.text[at..]);
        let comment: Vec<&str> = before.lines().rev().take_while(|line| line.starts_with("//")).collect();
        let comment: Vec<&str> = comment.into_iter().rev().collect();
        let body = &rest[..rest.find("\n};")? + 3];
        Some(if comment.is_empty() { body.to_owned() } else { format!("{}\n{body}", comment.join("\n")) })
    }

    /// Its fields: type, name.
    pub fn fields(&self, name: &str) -> Vec<Parameter> {
        let Some(text) = self.structure(name) else { return Vec::new() };
        let code: String = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
        let body = code.split_once('{').map_or("", |(_, body)| body).trim_end_matches("};");
        let mut fields = Vec::new();
        for line in body.split(';').map(str::trim).filter(|line| !line.is_empty()) {
            let line = line.replace('*', "* ");
            let first = line.rfind("* ").map_or_else(|| line.find(' '), |at| Some(at + 1)).unwrap_or(0);
            let (kind, names) = line.split_at(first);
            for name in names.split(',').map(str::trim) {
                let (name, count) = name.split_once('[').unwrap_or((name, "1]"));
                let count: usize = count.trim_end_matches(']').parse().unwrap_or(1);
                let field = |i: usize| if count == 1 { name.to_owned() } else { format!("{name}[{i}]") };
                fields.extend((0..count).map(|i| Parameter { kind: kind.trim().to_owned(), name: field(i) }));
            }
        }
        fields
    }
}
