//! What stands behind an operand: attributes, subscripts, calls, filters and tests.

use super::Parser;
use crate::jinja::ast::{Attr, CallArgs, Const, Expr, FilterExpr, TestExpr};
use crate::jinja::error::{Result, syntax};
use crate::jinja::filters;
use crate::jinja::lexer::Kind;
use crate::jinja::predicates;

impl Parser {
    pub(super) fn postfix(&mut self, mut expr: Expr) -> Result<Expr> {
        loop {
            if self.is_op(".") || self.is_op("[") {
                expr = self.subscript(expr)?;
            } else if self.is_op("(") {
                expr = Expr::Call(Box::new(expr), Box::new(self.call_args()?));
            } else {
                return Ok(expr);
            }
        }
    }

    pub(super) fn filters(&mut self, mut expr: Expr) -> Result<Expr> {
        loop {
            if self.is_op("|") {
                self.next();
                expr = self.filter(Some(expr))?;
            } else if self.is_name("is") {
                expr = self.test(expr)?;
            } else if self.is_op("(") {
                expr = Expr::Call(Box::new(expr), Box::new(self.call_args()?));
            } else {
                return Ok(expr);
            }
        }
    }

    /// `name(args)` behind a `|`.
    fn filter(&mut self, target: Option<Expr>) -> Result<Expr> {
        let name = self.dotted_name()?;
        let args = if self.is_op("(") { self.call_args()? } else { CallArgs::default() };
        let filter = filters::find(&name);
        Ok(Expr::Filter(Box::new(FilterExpr { target, name, filter, args })))
    }

    /// The filters of `{% filter %}` and `{% set x | ... %}`; the first has no target.
    pub(super) fn filter_chain(&mut self) -> Result<Expr> {
        let mut expr = self.filter(None)?;
        while self.skip_op("|") {
            expr = self.filter(Some(expr))?;
        }
        Ok(expr)
    }

    fn test(&mut self, target: Expr) -> Result<Expr> {
        self.next();
        let negated = self.skip_name("not");
        let name = self.dotted_name()?;
        let mut args = CallArgs::default();
        match self.kind() {
            Kind::Op("(") => args = self.call_args()?,
            Kind::Name(name) if matches!(name.as_str(), "else" | "or" | "and") => {}
            Kind::Name(name) if name == "is" => {
                return Err(syntax(self.line(), "tests cannot be chained with `is`"));
            }
            Kind::Name(_) | Kind::Str(_) | Kind::Int(_) | Kind::Float(_) | Kind::Op("[" | "{") => {
                let arg = self.primary()?;
                args.positional.push(self.postfix(arg)?);
            }
            _ => {}
        }
        let test = predicates::find(&name);
        let expr = Expr::Test(Box::new(TestExpr { target, name, test, args }));
        Ok(if negated { Expr::Not(Box::new(expr)) } else { expr })
    }

    fn dotted_name(&mut self) -> Result<String> {
        let mut name = self.expect_name()?;
        while self.skip_op(".") {
            name.push('.');
            name.push_str(&self.expect_name()?);
        }
        Ok(name)
    }

    fn subscript(&mut self, object: Expr) -> Result<Expr> {
        if self.skip_op(".") {
            return match self.next() {
                Kind::Name(name) => Ok(Expr::Attr(Box::new(object), Attr::new(name))),
                Kind::Int(n) => {
                    Ok(Expr::Item(Box::new(object), Box::new(Expr::Const(Const::Int(n)))))
                }
                _ => {
                    self.at -= 1;
                    Err(self.unexpected("a name or a number"))
                }
            };
        }
        self.expect_op("[")?;
        let mut keys = Vec::new();
        while !self.is_op("]") {
            if !keys.is_empty() {
                self.expect_op(",")?;
            }
            if self.is_op(":") || !self.is_op("]") {
                keys.push(self.subscript_key()?);
            }
        }
        self.expect_op("]")?;
        match (keys.pop(), keys.is_empty()) {
            (None, _) => Err(self.unexpected("a subscript")),
            (Some(Key::Item(key)), true) => Ok(Expr::Item(Box::new(object), Box::new(key))),
            (Some(Key::Slice(parts)), true) => Ok(Expr::Slice(Box::new(object), parts)),
            (Some(last), false) => {
                keys.push(last);
                let items = keys.into_iter().map(|key| match key {
                    Key::Item(key) => Ok(key),
                    Key::Slice(_) => {
                        Err(syntax(self.line(), "a slice inside a tuple of subscripts"))
                    }
                });
                let key = Expr::Tuple(items.collect::<Result<_>>()?);
                Ok(Expr::Item(Box::new(object), Box::new(key)))
            }
        }
    }

    fn subscript_key(&mut self) -> Result<Key> {
        let mut parts: [Option<Expr>; 3] = [None, None, None];
        if !self.is_op(":") {
            let first = self.expression()?;
            if !self.is_op(":") {
                return Ok(Key::Item(first));
            }
            parts[0] = Some(first);
        }
        for part in &mut parts[1..] {
            if !self.skip_op(":") {
                break;
            }
            if !(self.is_op(":") || self.is_op("]") || self.is_op(",")) {
                *part = Some(self.expression()?);
            }
        }
        Ok(Key::Slice(Box::new(parts)))
    }

    pub(super) fn call_args(&mut self) -> Result<CallArgs> {
        let mut args = CallArgs::default();
        self.expect_op("(")?;
        let mut first = true;
        while !self.is_op(")") {
            if !first {
                self.expect_op(",")?;
                if self.is_op(")") {
                    break;
                }
            }
            first = false;
            let invalid = syntax(self.line(), "invalid order of arguments in a call");
            if self.skip_op("*") {
                if args.star.is_some() || args.double_star.is_some() {
                    return Err(invalid);
                }
                args.star = Some(self.expression()?);
            } else if self.skip_op("**") {
                if args.double_star.is_some() {
                    return Err(invalid);
                }
                args.double_star = Some(self.expression()?);
            } else if matches!((self.kind(), self.look()), (Kind::Name(_), Kind::Op("="))) {
                if args.double_star.is_some() {
                    return Err(invalid);
                }
                let name = self.expect_name()?;
                self.next();
                args.keyword.push((name, self.expression()?));
            } else {
                if args.star.is_some() || args.double_star.is_some() || !args.keyword.is_empty() {
                    return Err(invalid);
                }
                args.positional.push(self.expression()?);
            }
        }
        self.expect_op(")")?;
        Ok(args)
    }
}

enum Key {
    Item(Expr),
    Slice(Box<[Option<Expr>; 3]>),
}
