//! A score report as HTML.

use std::fmt::Write as _;

use super::{ScoreReport, histogram, reliability};
use crate::watch::html::{escape, page, table};

impl ScoreReport {
    /// As a piece of HTML: for `details` of [`EvalMetrics`](crate::watch::EvalMetrics), so for the report of a run,
    /// or a page that [`html::page`](crate::watch::html::page) makes.
    pub fn html(&self) -> String {
        let mut out = String::from("<section class=\"data-report\" id=\"scores\">\n");
        let class = if self.length.explains() { "warning" } else { "verdict" };
        _ = write!(out, "<p class=\"{class}\">{}</p>", escape(&self.length.verdict()));
        out.push_str(&table(self.lines()));
        out.push_str(&reliability(&self.all.calibration).to_html("reliability"));
        out.push_str(&histogram(&self.all.calibration).to_svg());
        self.buckets(&mut out);
        out.push_str("</section>\n");
        out
    }

    /// As a page of its own.
    pub fn page(&self, title: &str) -> String {
        page(title, &format!("<header><h1>{}</h1></header>{}", escape(title), self.html()))
    }

    fn buckets(&self, out: &mut String) {
        out.push_str(
            "<h2>By length</h2><table class=\"numbers\"><tr><th>tokens of both answers</th>",
        );
        let names = self.all.cells().map(|(name, _)| name);
        for name in names.into_iter().chain(["the longer is better", "model, better is shorter"]) {
            _ = write!(out, "<th>{name}</th>");
        }
        out.push_str("</tr>");
        for bucket in &self.buckets {
            _ = write!(out, "<tr><td>{}–{}</td>", bucket.from, bucket.to);
            for (_, value) in bucket.measures.cells() {
                _ = write!(out, "<td>{value}</td>");
            }
            let shorter = bucket.length.model_where_shorter.map(|share| share.to_string());
            let shorter = shorter.unwrap_or_default();
            _ = write!(out, "<td>{}</td><td>{shorter}</td></tr>", bucket.length.longer);
        }
        out.push_str("</table>");
    }
}
