//! The parts that charts are drawn of.

use std::fmt::Write as _;

use super::scale::Tick;
use super::{PLOT_STYLE, escape};

/// A picture of so many units and the frame inside of which the data is drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

impl Frame {
    /// With room for the numbers and names of the axes.
    pub(super) fn new((width, height): (f64, f64)) -> Self {
        Self { width, height, left: 52.0, right: width - 14.0, top: 12.0, bottom: height - 40.0 }
    }

    /// Where a share of the width lies.
    pub(super) fn across(&self, share: f64) -> f64 {
        self.left + share * (self.right - self.left)
    }

    /// Where a share of the height lies; pictures count from above.
    pub(super) fn up(&self, share: f64) -> f64 {
        self.bottom - share * (self.bottom - self.top)
    }

    /// The grid with numbers on the left at shares of the height, numbers and the name of the axis below at shares
    /// of the width.
    pub(super) fn axes(&self, out: &mut String, upward: &[Tick], across: &[Tick], name: &str) {
        let Self { height, left, right, bottom, .. } = *self;
        for (share, label) in upward {
            let y = self.up(*share);
            let text = escape(label);
            _ = write!(
                out,
                r#"<path class="grid" d="M{left} {y:.1}H{right}"/><text x="{:.1}" y="{:.1}" text-anchor="end">{text}</text>"#,
                left - 7.0,
                y + 4.0,
            );
        }
        for (share, label) in across {
            let (x, y, text) = (self.across(*share), bottom + 17.0, escape(label));
            _ = write!(out, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="middle">{text}</text>"#);
        }
        let (x, y, text) = (f64::midpoint(left, right), height - 6.0, escape(name));
        _ = write!(
            out,
            r#"<path class="axis" d="M{left} {bottom}H{right}"/><text x="{x:.1}" y="{y:.1}" text-anchor="middle">{text}</text>"#
        );
    }

    /// A picture that stands alone: with its style and, above the frame, its title.
    pub(super) fn standalone(&self, title: &str, inner: &str) -> String {
        let above = 26.0;
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 {} {} {}" role="img"><title>{title}</title><style>{PLOT_STYLE}</style><text class="title" x="{}" y="-6">{title}</text>{inner}</svg>"#,
            -above,
            self.width,
            self.height + above,
            self.left,
            title = escape(title),
        )
    }
}
