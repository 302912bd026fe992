//! Statements: the tags, and the text between them.

use super::Parser;
use super::expression::Elements;
use crate::jinja::ast::{Const, Expr, For, Macro, Name, Scoped, Stmt, StmtKind, Target};
use crate::jinja::error::{Result, syntax};
use crate::jinja::lexer::Kind;

impl Parser {
    /// Statements up to one of the `ends` tags, whose name is the current token afterwards, or to
    /// the end of the template.
    pub(super) fn body(&mut self, ends: &[&str]) -> Result<Vec<Stmt>> {
        self.deeper()?;
        let mut body = Vec::new();
        loop {
            let line = self.line();
            match self.next() {
                Kind::Data(text) => body.push(Stmt { line, kind: StmtKind::Data(text) }),
                Kind::VariableBegin => {
                    let expr = self.tuple(Elements::Any, &[])?;
                    if *self.kind() != Kind::VariableEnd {
                        return Err(self.unexpected("'}}'"));
                    }
                    self.next();
                    body.push(Stmt { line, kind: StmtKind::Output(expr) });
                }
                Kind::BlockBegin => {
                    if matches!(self.kind(), Kind::Name(name) if ends.contains(&name.as_str())) {
                        self.depth -= 1;
                        return Ok(body);
                    }
                    let kind = self.statement()?;
                    self.expect_block_end()?;
                    body.push(Stmt { line, kind });
                }
                _ if ends.is_empty() => {
                    self.depth -= 1;
                    return Ok(body);
                }
                _ => {
                    let expected = ends.join("' or '");
                    let message = format!("the template ends, expected the tag '{expected}'");
                    return Err(syntax(line, message));
                }
            }
        }
    }

    /// The body of a tag, with its end tag.
    fn block(&mut self, end: &str) -> Result<Vec<Stmt>> {
        self.block_start()?;
        let body = self.body(&[end])?;
        self.next();
        Ok(body)
    }

    fn block_start(&mut self) -> Result<()> {
        self.skip_op(":");
        self.expect_block_end()
    }

    fn scoped(&mut self, end: &str) -> Result<Scoped> {
        Ok(Scoped { body: self.block(end)?, entry: Vec::new() })
    }

    fn statement(&mut self) -> Result<StmtKind> {
        let line = self.line();
        let Kind::Name(tag) = self.next() else {
            self.at -= 1;
            return Err(self.unexpected("the name of a tag"));
        };
        match tag.as_str() {
            "if" => self.if_statement(),
            "for" => self.for_statement(),
            "set" => self.set_statement(),
            "with" => self.with_statement(),
            "macro" => {
                let name = self.variable()?;
                let macro_ = self.macro_rest(name, "endmacro", true)?;
                Ok(StmtKind::Macro(Box::new(macro_)))
            }
            "call" => self.call_statement(line),
            "filter" => {
                let filter = self.filter_chain()?;
                Ok(StmtKind::FilterBlock { filter, body: self.scoped("endfilter")? })
            }
            "generation" => Ok(StmtKind::Generation(self.scoped("endgeneration")?)),
            "block" => self.block_statement(),
            "print" => {
                let expr = self.tuple(Elements::Any, &[])?;
                Ok(StmtKind::Output(expr))
            }
            "break" => Ok(StmtKind::Break),
            "continue" => Ok(StmtKind::Continue),
            "include" | "import" | "from" | "extends" => {
                while !matches!(self.kind(), Kind::BlockEnd | Kind::End) {
                    self.next();
                }
                Ok(StmtKind::Fail(format!("`{tag}`: no loader for this environment specified")))
            }
            "autoescape" => {
                Err(syntax(line, "the tag 'autoescape' is not supported in chat templates"))
            }
            _ => Err(syntax(line, format!("unknown tag '{tag}'"))),
        }
    }

    fn if_statement(&mut self) -> Result<StmtKind> {
        let mut branches = Vec::new();
        loop {
            let test = self.tuple(Elements::WithoutCond, &[])?;
            self.block_start()?;
            branches.push((test, self.body(&["elif", "else", "endif"])?));
            match self.next() {
                Kind::Name(name) if name == "elif" => {}
                Kind::Name(name) if name == "else" => {
                    let otherwise = self.block("endif")?;
                    return Ok(StmtKind::If { branches, otherwise });
                }
                _ => return Ok(StmtKind::If { branches, otherwise: Vec::new() }),
            }
        }
    }

    fn for_statement(&mut self) -> Result<StmtKind> {
        let target = self.target(&["in"], false)?;
        if target_names(&target).contains(&"loop") {
            return Err(syntax(self.line(), "cannot assign to `loop` in a for loop"));
        }
        if !self.skip_name("in") {
            return Err(self.unexpected("'in'"));
        }
        let iter = self.tuple(Elements::WithoutCond, &["recursive"])?;
        let test = if self.skip_name("if") { Some(self.expression()?) } else { None };
        let recursive = self.skip_name("recursive");
        self.block_start()?;
        let body = self.body(&["endfor", "else"])?;
        let otherwise = match self.next() {
            Kind::Name(name) if name == "else" => self.block("endfor")?,
            _ => Vec::new(),
        };
        let scoped = |body| Scoped { body, entry: Vec::new() };
        Ok(StmtKind::For(Box::new(For {
            target,
            iter,
            test,
            recursive,
            body: scoped(body),
            otherwise: scoped(otherwise),
            loop_slot: 0,
        })))
    }

    fn set_statement(&mut self) -> Result<StmtKind> {
        let target = self.target(&[], true)?;
        if self.skip_op("=") {
            return Ok(StmtKind::Set(target, self.tuple(Elements::Any, &[])?));
        }
        let filter = if self.skip_op("|") { Some(self.filter_chain()?) } else { None };
        Ok(StmtKind::SetBlock { target, filter, body: self.scoped("endset")? })
    }

    fn with_statement(&mut self) -> Result<StmtKind> {
        let mut targets = Vec::new();
        while *self.kind() != Kind::BlockEnd {
            if !targets.is_empty() {
                self.expect_op(",")?;
            }
            let target = self.target(&[], false)?;
            self.expect_op("=")?;
            targets.push((target, self.expression()?));
        }
        Ok(StmtKind::With { targets, body: self.scoped("endwith")? })
    }

    fn call_statement(&mut self, line: usize) -> Result<StmtKind> {
        let at = self.at;
        let params = if self.is_op("(") { self.signature()? } else { Vec::new() };
        let call = self.expression()?;
        if !matches!(call, Expr::Call(..)) {
            self.at = at;
            return Err(syntax(line, "expected a call behind 'call'"));
        }
        let name = Name { name: "caller".into(), ..Name::default() };
        let mut caller = self.macro_rest(name, "endcall", false)?;
        caller.params = params;
        Ok(StmtKind::Call { call, caller: Box::new(caller) })
    }

    fn block_statement(&mut self) -> Result<StmtKind> {
        let name = self.expect_name()?;
        let scoped = self.skip_name("scoped");
        let required = self.skip_name("required");
        let body = self.scoped("endblock")?;
        if let Kind::Name(found) = self.kind() {
            if *found != name {
                return Err(self.unexpected(&format!("'{name}'")));
            }
            self.next();
        }
        if required {
            return Ok(StmtKind::Fail(format!("required block '{name}' not found")));
        }
        Ok(StmtKind::Block { name, scoped, body })
    }

    fn macro_rest(&mut self, name: Name, end: &str, signature: bool) -> Result<Macro> {
        let params = if signature { self.signature()? } else { Vec::new() };
        let body = self.block(end)?;
        let entry = Vec::new();
        Ok(Macro { name, params, body, entry, slots: 0, caller: None, varargs: None, kwargs: None })
    }

    fn signature(&mut self) -> Result<Vec<(Name, Option<Expr>)>> {
        let mut params: Vec<(Name, Option<Expr>)> = Vec::new();
        self.expect_op("(")?;
        while !self.is_op(")") {
            if !params.is_empty() {
                self.expect_op(",")?;
            }
            let name = self.variable()?;
            let default = if self.skip_op("=") { Some(self.expression()?) } else { None };
            if default.is_none() && params.last().is_some_and(|(_, default)| default.is_some()) {
                return Err(syntax(self.line(), "a parameter without default follows one with"));
            }
            if params.iter().any(|(known, _)| known.name == name.name) {
                return Err(syntax(
                    self.line(),
                    format!("two parameters are named '{}'", name.name),
                ));
            }
            if name.name == "caller" && default.is_none() {
                return Err(syntax(self.line(), "the parameter 'caller' must have a default"));
            }
            params.push((name, default));
        }
        self.expect_op(")")?;
        Ok(params)
    }

    fn variable(&mut self) -> Result<Name> {
        match self.primary()? {
            Expr::Name(name) => Ok(name),
            Expr::Const(Const::Bool(_) | Const::None) => {
                Err(syntax(self.line(), "cannot assign to a constant"))
            }
            _ => Err(self.unexpected("the name of a variable")),
        }
    }

    /// What a `for` or `set` assigns to: a name, `namespace.attribute` or a tuple of these.
    fn target(&mut self, ends: &[&str], namespaces: bool) -> Result<Target> {
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            match self.kind() {
                Kind::Name(name) if ends.contains(&name.as_str()) => break,
                Kind::Op(")" | "=") | Kind::BlockEnd => break,
                _ => {}
            }
            items.push(self.target_item(namespaces)?);
            if !self.skip_op(",") {
                break;
            }
            is_tuple = true;
        }
        match items.pop() {
            Some(only) if !is_tuple => Ok(only),
            Some(last) => {
                items.push(last);
                Ok(Target::Tuple(items))
            }
            None => Err(self.unexpected("the name of a variable")),
        }
    }

    fn target_item(&mut self, namespaces: bool) -> Result<Target> {
        if self.skip_op("(") {
            let inner = self.target(&[], namespaces)?;
            self.expect_op(")")?;
            return Ok(inner);
        }
        let name = self.variable()?;
        if namespaces && self.skip_op(".") {
            return Ok(Target::Namespace(name, self.expect_name()?));
        }
        Ok(Target::Name(name))
    }
}

/// The names that a target assigns.
pub(crate) fn target_names(target: &Target) -> Vec<&str> {
    match target {
        Target::Name(name) => vec![&name.name],
        Target::Tuple(items) => items.iter().flat_map(target_names).collect(),
        Target::Namespace(..) => Vec::new(),
    }
}
