//! Expressions, loosest binding first: inline if, or, and, not, comparison, sum, `~`, product,
//! power, sign, postfix and filters.

use super::Parser;
use crate::jinja::ast::{BinaryOp, CompareOp, Const, Expr, Name};
use crate::jinja::error::Result;
use crate::jinja::lexer::Kind;

/// How the elements of a bare tuple are read.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Elements {
    Any,
    /// Without an inline `if`, which means something else there (`for x in y if z`).
    WithoutCond,
}

impl Parser {
    pub(super) fn expression(&mut self) -> Result<Expr> {
        self.deeper()?;
        let mut then = self.or()?;
        while self.skip_name("if") {
            let test = Box::new(self.or()?);
            let otherwise =
                if self.skip_name("else") { Some(Box::new(self.expression()?)) } else { None };
            then = Expr::Cond { test, then: Box::new(then), otherwise };
        }
        self.depth -= 1;
        Ok(then)
    }

    /// One expression, or several with commas: a tuple.
    pub(super) fn tuple(&mut self, elements: Elements, ends: &[&str]) -> Result<Expr> {
        self.tuple_in(elements, ends, false)
    }

    fn tuple_in(&mut self, elements: Elements, ends: &[&str], parentheses: bool) -> Result<Expr> {
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            if !items.is_empty() {
                self.expect_op(",")?;
            }
            let at_end = match self.kind() {
                Kind::VariableEnd | Kind::BlockEnd | Kind::Op(")") => true,
                Kind::Name(name) => ends.contains(&name.as_str()),
                _ => false,
            };
            if at_end {
                break;
            }
            items.push(if elements == Elements::Any { self.expression()? } else { self.or()? });
            if !self.is_op(",") {
                break;
            }
            is_tuple = true;
        }
        match items.pop() {
            Some(only) if !is_tuple => Ok(only),
            Some(last) => {
                items.push(last);
                Ok(Expr::Tuple(items))
            }
            None if parentheses => Ok(Expr::Tuple(items)),
            None => Err(self.unexpected("an expression")),
        }
    }

    fn or(&mut self) -> Result<Expr> {
        let mut left = self.and()?;
        while self.skip_name("or") {
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr> {
        let mut left = self.not()?;
        while self.skip_name("and") {
            left = Expr::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr> {
        if self.skip_name("not") {
            self.deeper()?;
            let inner = self.not()?;
            self.depth -= 1;
            return Ok(Expr::Not(Box::new(inner)));
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Expr> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let op = match self.kind() {
                Kind::Op("==") => CompareOp::Eq,
                Kind::Op("!=") => CompareOp::Ne,
                Kind::Op("<") => CompareOp::Lt,
                Kind::Op("<=") => CompareOp::Le,
                Kind::Op(">") => CompareOp::Gt,
                Kind::Op(">=") => CompareOp::Ge,
                Kind::Name(name) if name == "in" => CompareOp::In,
                Kind::Name(name)
                    if name == "not" && matches!(self.look(), Kind::Name(n) if n == "in") =>
                {
                    self.next();
                    CompareOp::NotIn
                }
                _ => break,
            };
            self.next();
            rest.push((op, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Compare(Box::new(first), rest) })
    }

    fn sum(&mut self) -> Result<Expr> {
        let mut left = self.concat()?;
        loop {
            if self.skip_op("+") {
                let right = self.concat()?;
                match &mut left {
                    Expr::Sum(terms) => terms.push(right),
                    _ => left = Expr::Sum(vec![left, right]),
                }
            } else if self.skip_op("-") {
                let right = Box::new(self.concat()?);
                left = Expr::Binary(BinaryOp::Sub, Box::new(left), right);
            } else {
                return Ok(left);
            }
        }
    }

    fn concat(&mut self) -> Result<Expr> {
        let first = self.product()?;
        if !self.is_op("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip_op("~") {
            parts.push(self.product()?);
        }
        Ok(Expr::Concat(parts))
    }

    fn product(&mut self) -> Result<Expr> {
        let mut left = self.power()?;
        loop {
            let op = match self.kind() {
                Kind::Op("*") => BinaryOp::Mul,
                Kind::Op("/") => BinaryOp::Div,
                Kind::Op("//") => BinaryOp::FloorDiv,
                Kind::Op("%") => BinaryOp::Rem,
                _ => return Ok(left),
            };
            self.next();
            left = Expr::Binary(op, Box::new(left), Box::new(self.power()?));
        }
    }

    fn power(&mut self) -> Result<Expr> {
        let mut left = self.unary(true)?;
        while self.skip_op("**") {
            left = Expr::Binary(BinaryOp::Pow, Box::new(left), Box::new(self.unary(true)?));
        }
        Ok(left)
    }

    fn unary(&mut self, with_filters: bool) -> Result<Expr> {
        self.deeper()?;
        let inner = if self.skip_op("-") {
            Expr::Neg(Box::new(self.unary(false)?))
        } else if self.skip_op("+") {
            Expr::Pos(Box::new(self.unary(false)?))
        } else {
            self.primary()?
        };
        let mut expr = self.postfix(inner)?;
        if with_filters {
            expr = self.filters(expr)?;
        }
        self.depth -= 1;
        Ok(expr)
    }

    pub(super) fn primary(&mut self) -> Result<Expr> {
        let expr = match self.kind().clone() {
            Kind::Name(name) => match name.as_str() {
                "true" | "True" => Expr::Const(Const::Bool(true)),
                "false" | "False" => Expr::Const(Const::Bool(false)),
                "none" | "None" => Expr::Const(Const::None),
                _ => Expr::Name(Name { name, ..Name::default() }),
            },
            Kind::Str(mut text) => {
                while let Kind::Str(more) = self.look() {
                    text.push_str(more);
                    self.next();
                }
                Expr::Const(Const::Str(text))
            }
            Kind::Int(n) => Expr::Const(Const::Int(n)),
            Kind::Float(x) => Expr::Const(Const::Float(x)),
            Kind::Op("(") => {
                self.next();
                let inner = self.tuple_in(Elements::Any, &[], true)?;
                self.expect_op(")")?;
                // A sum in parentheses is one operand: the terms around it must not join it.
                return Ok(match inner {
                    Expr::Sum(terms) => Expr::Sum(vec![Expr::Sum(terms)]),
                    inner => inner,
                });
            }
            Kind::Op("[") => {
                self.next();
                let mut items = Vec::new();
                while !self.is_op("]") {
                    if !items.is_empty() {
                        self.expect_op(",")?;
                    }
                    if self.is_op("]") {
                        break;
                    }
                    items.push(self.expression()?);
                }
                Expr::List(items)
            }
            Kind::Op("{") => {
                self.next();
                let mut items = Vec::new();
                while !self.is_op("}") {
                    if !items.is_empty() {
                        self.expect_op(",")?;
                    }
                    if self.is_op("}") {
                        break;
                    }
                    let key = self.expression()?;
                    self.expect_op(":")?;
                    items.push((key, self.expression()?));
                }
                Expr::Dict(items)
            }
            _ => return Err(self.unexpected("an expression")),
        };
        self.next();
        Ok(expr)
    }
}
