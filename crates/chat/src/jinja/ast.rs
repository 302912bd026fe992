//! The tree of a template. Names are resolved to slots by `scope` before the tree is rendered.

use super::filters::Filter;
use super::methods::{self, Known};
use super::predicates::Predicate;
use super::value::Value;

#[derive(Debug)]
pub(crate) enum Expr {
    Const(Const),
    Name(Name),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Attr(Box<Expr>, Attr),
    Item(Box<Expr>, Box<Expr>),
    /// `object[start:stop:step]`
    Slice(Box<Expr>, Box<[Option<Expr>; 3]>),
    Call(Box<Expr>, Box<CallArgs>),
    Filter(Box<FilterExpr>),
    Test(Box<TestExpr>),
    /// `a + b + c`, kept flat so that long texts are built once.
    Sum(Vec<Expr>),
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// `a ~ b ~ c`
    Concat(Vec<Expr>),
    Not(Box<Expr>),
    Neg(Box<Expr>),
    Pos(Box<Expr>),
    /// `a < b <= c`: the first operand and the rest with their operators.
    Compare(Box<Expr>, Vec<(CompareOp, Expr)>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    /// `then if test else otherwise`
    Cond {
        test: Box<Expr>,
        then: Box<Expr>,
        otherwise: Option<Box<Expr>>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Const {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(String),
}

/// The name behind a dot, with what Python's types make of it, found once.
#[derive(Debug)]
pub(crate) struct Attr {
    pub(crate) name: String,
    pub(crate) known: Known,
}

impl Attr {
    pub(crate) fn new(name: String) -> Self {
        Self { known: Known::find(&name), name }
    }

    /// Whether `object.name` is a method that can be called.
    pub(crate) fn is_method_of(&self, object: &Value<'_>) -> bool {
        match object {
            Value::Str(_) | Value::Markup(_) => self.known.on_str,
            Value::Dict(_) if !self.known.on_dict => false,
            object => methods::exists(object, &self.name),
        }
    }
}

/// A variable: `depth` functions (macro bodies) outward, then its slot there.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_field_names, reason = "a name has a name")]
pub(crate) struct Name {
    pub(crate) name: String,
    pub(crate) depth: u32,
    pub(crate) slot: u32,
}

#[derive(Debug, Default)]
pub(crate) struct CallArgs {
    pub(crate) positional: Vec<Expr>,
    pub(crate) keyword: Vec<(String, Expr)>,
    pub(crate) star: Option<Expr>,
    pub(crate) double_star: Option<Expr>,
}

#[derive(Debug)]
pub(crate) struct FilterExpr {
    /// `None` in `{% filter %}` and `{% set x | filter %}`: the captured text.
    pub(crate) target: Option<Expr>,
    pub(crate) name: String,
    /// `None` when Jinja2 has no such filter; an error when it is reached.
    pub(crate) filter: Option<Filter>,
    pub(crate) args: CallArgs,
}

#[derive(Debug)]
pub(crate) struct TestExpr {
    pub(crate) target: Expr,
    pub(crate) name: String,
    pub(crate) test: Option<Predicate>,
    pub(crate) args: CallArgs,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum BinaryOp {
    Sub,
    Mul,
    Div,
    FloorDiv,
    Rem,
    Pow,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum CompareOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}

#[derive(Debug)]
pub(crate) struct Stmt {
    pub(crate) line: usize,
    pub(crate) kind: StmtKind,
}

#[derive(Debug)]
pub(crate) enum StmtKind {
    Data(String),
    Output(Expr),
    If {
        branches: Vec<(Expr, Vec<Stmt>)>,
        otherwise: Vec<Stmt>,
    },
    For(Box<For>),
    Set(Target, Expr),
    SetBlock {
        target: Target,
        filter: Option<Expr>,
        body: Scoped,
    },
    With {
        targets: Vec<(Target, Expr)>,
        body: Scoped,
    },
    Macro(Box<Macro>),
    /// `{% call(args) macro(...) %}body{% endcall %}`; the body is a nameless macro.
    Call {
        call: Expr,
        caller: Box<Macro>,
    },
    FilterBlock {
        filter: Expr,
        body: Scoped,
    },
    Generation(Scoped),
    /// `{% block name %}`: unless `scoped`, it does not see the variables of the loops around it.
    Block {
        name: String,
        scoped: bool,
        body: Scoped,
    },
    Break,
    Continue,
    /// A statement that only fails when it is reached (`include` without a loader).
    Fail(String),
}

/// A body with its own scope: the slots to reset on entry.
#[derive(Debug, Default)]
pub(crate) struct Scoped {
    pub(crate) body: Vec<Stmt>,
    pub(crate) entry: Vec<Entry>,
}

/// On entry of a scope, `slot` takes the value that the name has outside.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) slot: u32,
    pub(crate) outer: Name,
}

#[derive(Debug)]
pub(crate) struct For {
    pub(crate) target: Target,
    pub(crate) iter: Expr,
    pub(crate) test: Option<Expr>,
    pub(crate) recursive: bool,
    pub(crate) body: Scoped,
    pub(crate) otherwise: Scoped,
    /// Slot of `loop`.
    pub(crate) loop_slot: u32,
}

#[derive(Debug)]
pub(crate) struct Macro {
    pub(crate) name: Name,
    pub(crate) params: Vec<(Name, Option<Expr>)>,
    pub(crate) body: Vec<Stmt>,
    pub(crate) entry: Vec<Entry>,
    pub(crate) slots: u32,
    /// Slots of the special variables, where the body uses them.
    pub(crate) caller: Option<u32>,
    pub(crate) varargs: Option<u32>,
    pub(crate) kwargs: Option<u32>,
}

#[derive(Debug)]
pub(crate) enum Target {
    Name(Name),
    Tuple(Vec<Target>),
    /// `namespace.attribute`
    Namespace(Name, String),
}

impl StmtKind {
    /// The bodies inside a statement.
    fn bodies(&self) -> Vec<&[Stmt]> {
        match self {
            StmtKind::If { branches, otherwise } => {
                let bodies = branches.iter().map(|(_, body)| &body[..]);
                bodies.chain([&otherwise[..]]).collect()
            }
            StmtKind::For(for_) => vec![&for_.body.body, &for_.otherwise.body],
            StmtKind::SetBlock { body, .. }
            | StmtKind::With { body, .. }
            | StmtKind::FilterBlock { body, .. }
            | StmtKind::Generation(body)
            | StmtKind::Block { body, .. } => vec![&body.body],
            StmtKind::Macro(macro_) | StmtKind::Call { caller: macro_, .. } => vec![&macro_.body],
            _ => Vec::new(),
        }
    }

    /// The expressions of a statement itself.
    fn exprs(&self) -> Vec<&Expr> {
        match self {
            StmtKind::Output(expr) | StmtKind::Set(_, expr) => vec![expr],
            StmtKind::If { branches, .. } => branches.iter().map(|(test, _)| test).collect(),
            StmtKind::For(for_) => [&for_.iter].into_iter().chain(&for_.test).collect(),
            StmtKind::SetBlock { filter, .. } => filter.iter().collect(),
            StmtKind::With { targets, .. } => targets.iter().map(|(_, expr)| expr).collect(),
            StmtKind::Macro(macro_) => {
                macro_.params.iter().filter_map(|(_, default)| default.as_ref()).collect()
            }
            StmtKind::Call { call, caller } => {
                let defaults = caller.params.iter().filter_map(|(_, default)| default.as_ref());
                [call].into_iter().chain(defaults).collect()
            }
            StmtKind::FilterBlock { filter, .. } => vec![filter],
            _ => Vec::new(),
        }
    }
}

impl Expr {
    /// The expressions directly inside this one.
    fn children(&self) -> Vec<&Expr> {
        fn with_args<'e>(first: Option<&'e Expr>, args: &'e CallArgs) -> Vec<&'e Expr> {
            let keyword = args.keyword.iter().map(|(_, value)| value);
            let rest =
                args.positional.iter().chain(keyword).chain(&args.star).chain(&args.double_star);
            first.into_iter().chain(rest).collect()
        }
        match self {
            Expr::Const(_) | Expr::Name(_) => Vec::new(),
            Expr::List(items) | Expr::Tuple(items) | Expr::Sum(items) | Expr::Concat(items) => {
                items.iter().collect()
            }
            Expr::Dict(items) => items.iter().flat_map(|(key, value)| [key, value]).collect(),
            Expr::Attr(inner, _) | Expr::Not(inner) | Expr::Neg(inner) | Expr::Pos(inner) => {
                vec![inner]
            }
            Expr::Item(left, right)
            | Expr::Binary(_, left, right)
            | Expr::And(left, right)
            | Expr::Or(left, right) => vec![left, right],
            Expr::Slice(object, parts) => {
                [&**object].into_iter().chain(parts.iter().flatten()).collect()
            }
            Expr::Call(function, args) => with_args(Some(function), args),
            Expr::Filter(filter) => with_args(filter.target.as_ref(), &filter.args),
            Expr::Test(test) => with_args(Some(&test.target), &test.args),
            Expr::Compare(first, rest) => {
                [&**first].into_iter().chain(rest.iter().map(|(_, operand)| operand)).collect()
            }
            Expr::Cond { test, then, otherwise } => {
                [&**test, then].into_iter().chain(otherwise.as_deref()).collect()
            }
        }
    }
}

/// Collects template text and string constants.
pub(crate) fn literals<'t>(body: &'t [Stmt], out: &mut Vec<&'t str>) {
    fn in_expr<'t>(expr: &'t Expr, out: &mut Vec<&'t str>) {
        if let Expr::Const(Const::Str(text)) = expr {
            out.push(text);
        }
        expr.children().into_iter().for_each(|child| in_expr(child, out));
    }
    for statement in body {
        if let StmtKind::Data(text) = &statement.kind {
            out.push(text);
        }
        statement.kind.exprs().into_iter().for_each(|expr| in_expr(expr, out));
        statement.kind.bodies().into_iter().for_each(|body| literals(body, out));
    }
}

pub(crate) fn has_generation(body: &[Stmt]) -> bool {
    body.iter().any(|statement| {
        matches!(statement.kind, StmtKind::Generation(_))
            || statement.kind.bodies().into_iter().any(has_generation)
    })
}
