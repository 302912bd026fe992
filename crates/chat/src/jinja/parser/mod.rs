//! Tokens to tree, after the grammar of Jinja2 3.1.

mod expression;
mod postfix;
mod statement;

pub(crate) use statement::target_names;

use super::ast::Stmt;
use super::error::{Failure, Result, syntax};
use super::lexer::{Kind, Token, lex};

/// Deepest nesting of expressions and statements; far above any real template, far below the stack.
const MAX_DEPTH: usize = 100;

pub(crate) fn parse(source: &str) -> Result<Vec<Stmt>> {
    let mut parser = Parser { tokens: lex(source)?, at: 0, depth: 0 };
    let body = parser.body(&[])?;
    Ok(body)
}

pub(crate) struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn kind(&self) -> &Kind {
        &self.tokens[self.at].kind
    }

    fn line(&self) -> usize {
        self.tokens[self.at].line
    }

    fn look(&self) -> &Kind {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].kind
    }

    fn next(&mut self) -> Kind {
        let kind = self.kind().clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        kind
    }

    fn is_op(&self, op: &str) -> bool {
        matches!(self.kind(), Kind::Op(found) if *found == op)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.kind(), Kind::Name(found) if found == name)
    }

    fn skip_op(&mut self, op: &str) -> bool {
        let found = self.is_op(op);
        if found {
            self.next();
        }
        found
    }

    fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        if found {
            self.next();
        }
        found
    }

    fn expect_op(&mut self, op: &str) -> Result<()> {
        if self.skip_op(op) { Ok(()) } else { Err(self.unexpected(&format!("'{op}'"))) }
    }

    fn expect_name(&mut self) -> Result<String> {
        if let Kind::Name(name) = self.next() {
            Ok(name)
        } else {
            self.at -= 1;
            Err(self.unexpected("a name"))
        }
    }

    fn expect_block_end(&mut self) -> Result<()> {
        if *self.kind() == Kind::BlockEnd {
            self.next();
            Ok(())
        } else {
            Err(self.unexpected("the end of the statement"))
        }
    }

    fn unexpected(&self, expected: &str) -> Failure {
        let found = match self.kind() {
            Kind::Data(_) => "template text".into(),
            Kind::BlockBegin => "'{%'".into(),
            Kind::BlockEnd => "the end of the statement".into(),
            Kind::VariableBegin => "'{{'".into(),
            Kind::VariableEnd => "'}}'".into(),
            Kind::Name(name) => format!("'{name}'"),
            Kind::Str(text) => format!("{text:?}"),
            Kind::Int(n) => n.to_string(),
            Kind::Float(x) => x.to_string(),
            Kind::Op(op) => format!("'{op}'"),
            Kind::End => "the end of the template".into(),
        };
        syntax(self.line(), format!("found {found}, expected {expected}"))
    }

    fn deeper(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let message = format!("nested deeper than {MAX_DEPTH} levels");
            return Err(syntax(self.line(), message));
        }
        Ok(())
    }
}
