//! Names to slots.
//!
//! The template and every macro body are *functions* with an array of slots; `for`, `with`, `set`
//! blocks and the like are *scopes* inside a function. A name that a scope assigns gets a slot of
//! its own there, which takes the outer value on entry, so that assignments do not leak (Jinja2's
//! rule). A name that nobody assigns is a slot of the template, filled from the context.

use std::collections::HashMap;

use super::ast::{CallArgs, Entry, Expr, For, Macro, Name, Scoped, Stmt, StmtKind, Target};
use super::error::{Result, syntax};
use super::parser::target_names;

/// Resolves every name of the template; returns the names of the template's own slots, in order.
pub(crate) fn resolve(body: &mut [Stmt]) -> Result<Vec<String>> {
    let mut resolver = Resolver {
        scopes: vec![Scope::new(0)],
        slots: vec![0],
        soft: false,
        loops: 0,
        blocks: Vec::new(),
        line: 0,
    };
    for name in stored_names(body) {
        resolver.declare(&name);
    }
    resolver.statements(body)?;
    let mut names = vec![String::new(); resolver.slots[0] as usize];
    for (name, slot) in &resolver.scopes[0].names {
        names[*slot as usize].clone_from(name);
    }
    Ok(names)
}

struct Scope {
    names: HashMap<String, u32>,
    /// Index of the function that the scope belongs to.
    function: usize,
    /// Whether this is the outermost scope of a macro, where `caller` and its like are found.
    is_macro: bool,
}

impl Scope {
    fn new(function: usize) -> Self {
        Self { names: HashMap::new(), function, is_macro: false }
    }
}

struct Resolver {
    scopes: Vec<Scope>,
    /// Number of slots of each function around the current statement.
    slots: Vec<u32>,
    /// Inside an `if`, where an unknown filter only fails when it is reached.
    soft: bool,
    /// Loops around the current statement in the same function, for `break` and `continue`.
    loops: usize,
    /// The names of the `{% block %}`s so far.
    blocks: Vec<String>,
    line: usize,
}

impl Resolver {
    fn function(&self) -> usize {
        self.slots.len() - 1
    }

    fn declare(&mut self, name: &str) -> u32 {
        let function = self.function();
        let scope = self.scopes.last_mut().expect("the template's scope is never popped");
        let slots = &mut self.slots[function];
        *scope.names.entry(name.to_owned()).or_insert_with(|| {
            *slots += 1;
            *slots - 1
        })
    }

    fn lookup(&mut self, name: &str) -> (u32, u32) {
        let current = self.function();
        for scope in self.scopes.iter_mut().rev() {
            let depth = (current - scope.function) as u32;
            if let Some(&slot) = scope.names.get(name) {
                return (depth, slot);
            }
            if scope.is_macro && matches!(name, "caller" | "varargs" | "kwargs") {
                let slot = self.slots[scope.function];
                self.slots[scope.function] += 1;
                scope.names.insert(name.to_owned(), slot);
                return (depth, slot);
            }
        }
        let slot = self.slots[0];
        self.slots[0] += 1;
        self.scopes[0].names.insert(name.to_owned(), slot);
        (current as u32, slot)
    }

    fn name(&mut self, name: &mut Name) {
        (name.depth, name.slot) = self.lookup(&name.name);
    }

    /// Opens a scope in which `names` are local; the entries copy their outer values.
    fn open(&mut self, names: &[String]) -> Vec<Entry> {
        let mut outer = Vec::new();
        for name in names {
            let mut found = Name { name: name.clone(), ..Name::default() };
            self.name(&mut found);
            outer.push(found);
        }
        self.scopes.push(Scope::new(self.function()));
        outer
            .into_iter()
            .map(|outer| {
                // Always a new slot, also where a sibling scope used the same name.
                Entry { slot: self.declare(&outer.name), outer }
            })
            .collect()
    }

    fn scoped(&mut self, scoped: &mut Scoped) -> Result<()> {
        scoped.entry = self.open(&stored_names(&scoped.body));
        let soft = std::mem::take(&mut self.soft);
        self.statements(&mut scoped.body)?;
        self.soft = soft;
        self.scopes.pop();
        Ok(())
    }

    fn statements(&mut self, body: &mut [Stmt]) -> Result<()> {
        for statement in body {
            self.line = statement.line;
            self.statement(&mut statement.kind)?;
        }
        Ok(())
    }

    fn statement(&mut self, kind: &mut StmtKind) -> Result<()> {
        match kind {
            StmtKind::Data(_) | StmtKind::Fail(_) => Ok(()),
            StmtKind::Output(expr) => self.expr(expr),
            StmtKind::If { branches, otherwise } => {
                let soft = std::mem::replace(&mut self.soft, true);
                for (test, body) in branches {
                    self.expr(test)?;
                    self.statements(body)?;
                }
                self.statements(otherwise)?;
                self.soft = soft;
                Ok(())
            }
            StmtKind::For(for_) => self.for_loop(for_),
            StmtKind::Set(target, expr) => {
                self.expr(expr)?;
                self.target(target);
                Ok(())
            }
            StmtKind::SetBlock { target, filter, body } => {
                self.scoped(body)?;
                let soft = std::mem::take(&mut self.soft);
                self.exprs(filter)?;
                self.soft = soft;
                self.target(target);
                Ok(())
            }
            StmtKind::With { targets, body } => {
                for (_, expr) in targets.iter_mut() {
                    self.expr(expr)?;
                }
                let mut names = stored_names(&body.body);
                for (target, _) in targets.iter() {
                    push_names(target, &mut names);
                }
                body.entry = self.open(&names);
                let soft = std::mem::take(&mut self.soft);
                for (target, _) in targets {
                    self.target(target);
                }
                self.statements(&mut body.body)?;
                self.soft = soft;
                self.scopes.pop();
                Ok(())
            }
            StmtKind::Macro(macro_) => {
                self.name(&mut macro_.name);
                self.macro_body(macro_)
            }
            StmtKind::Call { call, caller } => {
                self.expr(call)?;
                self.macro_body(caller)
            }
            StmtKind::FilterBlock { filter, body } => {
                self.scoped(body)?;
                let soft = std::mem::take(&mut self.soft);
                self.expr(filter)?;
                self.soft = soft;
                Ok(())
            }
            StmtKind::Generation(body) => {
                let loops = std::mem::take(&mut self.loops);
                self.scoped(body)?;
                self.loops = loops;
                Ok(())
            }
            StmtKind::Block { name, scoped, body } => {
                if self.blocks.contains(name) {
                    return Err(syntax(self.line, format!("block '{name}' is defined twice")));
                }
                self.blocks.push(name.clone());
                if *scoped {
                    return self.scoped(body);
                }
                let outer = self.scopes.split_off(1);
                let result = self.scoped(body);
                self.scopes.truncate(1);
                self.scopes.extend(outer);
                result
            }
            StmtKind::Break | StmtKind::Continue => {
                if self.loops == 0 {
                    return Err(syntax(self.line, "'break' or 'continue' outside of a loop"));
                }
                Ok(())
            }
        }
    }

    fn for_loop(&mut self, for_: &mut For) -> Result<()> {
        self.expr(&mut for_.iter)?;
        let mut names = stored_names(&for_.body.body);
        if names.iter().any(|name| name == "loop") {
            return Err(syntax(self.line, "cannot assign to `loop` in a for loop"));
        }
        // The targets are assigned before anything reads them.
        names.retain(|name| !target_names(&for_.target).contains(&name.as_str()));
        for_.body.entry = self.open(&names);
        for name in target_names(&for_.target) {
            self.declare(name);
        }
        for_.loop_slot = self.declare("loop");
        let soft = std::mem::take(&mut self.soft);
        self.target(&mut for_.target);
        if let Some(test) = &mut for_.test {
            self.expr(test)?;
        }
        self.loops += 1;
        self.statements(&mut for_.body.body)?;
        self.loops -= 1;
        self.soft = soft;
        self.scopes.pop();
        self.scoped(&mut for_.otherwise)
    }

    fn macro_body(&mut self, macro_: &mut Macro) -> Result<()> {
        let params: Vec<&str> = macro_.params.iter().map(|(name, _)| name.name.as_str()).collect();
        let mut stored = stored_names(&macro_.body);
        stored.retain(|name| !params.contains(&name.as_str()));
        let mut outer = Vec::new();
        for name in &stored {
            let (depth, slot) = self.lookup(name);
            outer.push(Name { name: name.clone(), depth: depth + 1, slot });
        }
        self.slots.push(0);
        self.scopes.push(Scope { is_macro: true, ..Scope::new(self.function()) });
        let (soft, loops) = (std::mem::take(&mut self.soft), std::mem::take(&mut self.loops));
        for (name, _) in &mut macro_.params {
            name.slot = self.declare(&name.name);
        }
        macro_.entry = outer
            .into_iter()
            .map(|outer| Entry { slot: self.declare(&outer.name), outer })
            .collect();
        for (_, default) in &mut macro_.params {
            if let Some(default) = default {
                self.expr(default)?;
            }
        }
        self.statements(&mut macro_.body)?;
        (self.soft, self.loops) = (soft, loops);
        let special = |name: &str, scope: &Scope| {
            let is_param = macro_.params.iter().any(|(param, _)| param.name == name);
            if is_param { None } else { scope.names.get(name).copied() }
        };
        let scope = self.scopes.pop().expect("pushed above");
        let specials = ["caller", "varargs", "kwargs"].map(|name| special(name, &scope));
        [macro_.caller, macro_.varargs, macro_.kwargs] = specials;
        macro_.slots = self.slots.pop().expect("pushed above");
        Ok(())
    }

    fn target(&mut self, target: &mut Target) {
        match target {
            Target::Name(name) | Target::Namespace(name, _) => self.name(name),
            Target::Tuple(items) => items.iter_mut().for_each(|item| self.target(item)),
        }
    }

    fn exprs<'e>(&mut self, exprs: impl IntoIterator<Item = &'e mut Expr>) -> Result<()> {
        exprs.into_iter().try_for_each(|expr| self.expr(expr))
    }

    fn expr(&mut self, expr: &mut Expr) -> Result<()> {
        match expr {
            Expr::Const(_) => Ok(()),
            Expr::Name(name) => {
                self.name(name);
                Ok(())
            }
            Expr::List(items) | Expr::Tuple(items) | Expr::Sum(items) | Expr::Concat(items) => {
                self.exprs(items)
            }
            Expr::Dict(items) => self.exprs(items.iter_mut().flat_map(|(key, value)| [key, value])),
            Expr::Attr(object, _) => self.expr(object),
            Expr::Item(left, right)
            | Expr::Binary(_, left, right)
            | Expr::And(left, right)
            | Expr::Or(left, right) => {
                self.expr(left)?;
                self.expr(right)
            }
            Expr::Slice(object, parts) => {
                self.expr(object)?;
                self.exprs(parts.iter_mut().flatten())
            }
            Expr::Call(function, args) => {
                self.expr(function)?;
                self.args(args)
            }
            Expr::Filter(filter) => {
                if filter.filter.is_none() && !self.soft {
                    return Err(syntax(self.line, format!("no filter named '{}'", filter.name)));
                }
                self.exprs(&mut filter.target)?;
                self.args(&mut filter.args)
            }
            Expr::Test(test) => {
                if test.test.is_none() && !self.soft {
                    return Err(syntax(self.line, format!("no test named '{}'", test.name)));
                }
                self.expr(&mut test.target)?;
                self.args(&mut test.args)
            }
            Expr::Not(inner) | Expr::Neg(inner) | Expr::Pos(inner) => self.expr(inner),
            Expr::Compare(first, rest) => {
                self.expr(first)?;
                self.exprs(rest.iter_mut().map(|(_, operand)| operand))
            }
            Expr::Cond { test, then, otherwise } => {
                let soft = std::mem::replace(&mut self.soft, true);
                self.expr(test)?;
                self.expr(then)?;
                self.exprs(otherwise.as_deref_mut())?;
                self.soft = soft;
                Ok(())
            }
        }
    }

    fn args(&mut self, args: &mut CallArgs) -> Result<()> {
        self.exprs(&mut args.positional)?;
        self.exprs(args.keyword.iter_mut().map(|(_, value)| value))?;
        self.exprs(&mut args.star)?;
        self.exprs(&mut args.double_star)
    }
}

fn push_names(target: &Target, names: &mut Vec<String>) {
    for name in target_names(target) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
}

/// The names that a body assigns itself, not in a scope inside it.
fn stored_names(body: &[Stmt]) -> Vec<String> {
    fn collect(body: &[Stmt], names: &mut Vec<String>) {
        for statement in body {
            match &statement.kind {
                StmtKind::Set(target, _) | StmtKind::SetBlock { target, .. } => {
                    push_names(target, names);
                }
                StmtKind::Macro(macro_) => push_names(&Target::Name(macro_.name.clone()), names),
                StmtKind::If { branches, otherwise } => {
                    for (_, body) in branches {
                        collect(body, names);
                    }
                    collect(otherwise, names);
                }
                _ => {}
            }
        }
    }
    let mut names = Vec::new();
    collect(body, &mut names);
    names
}
