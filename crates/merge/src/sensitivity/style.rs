//! Colours and style of the page, for light and dark.

use std::fmt::Write as _;

/// Steps of a ramp of colours.
pub(super) const STEPS: usize = 13;

type Colour = [u8; 3];

/// From small to large.
const SEQUENTIAL: [[Colour; 3]; 2] = [
    [[0xee, 0xf3, 0xfa], [0x5b, 0x97, 0xd1], [0x0a, 0x2f, 0x6b]],
    [[0x1d, 0x28, 0x36], [0x2f, 0x7b, 0xb8], [0xd8, 0xec, 0xff]],
];
/// From agreement over neither to contradiction; told apart by colour-blind people too.
const DIVERGING: [[Colour; 3]; 2] = [
    [[0x1f, 0x6f, 0xb4], [0xee, 0xed, 0xea], [0xc0, 0x4d, 0x14]],
    [[0x5d, 0xaa, 0xf2], [0x2e, 0x34, 0x3d], [0xf2, 0x8c, 0x4d]],
];

const PAGE: &str = "\
:root{color-scheme:light dark;--ground:#fff;--card:#f7f8fa;--text:#1a202a;--soft:#5a6575;--line:#d7dde5;--link:#1f6fb4;
--warn:#b3470f;--warn-card:#fdf4ee;--bar:#9dbfe0}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--text);line-height:1.5;
font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}
main{max-width:1240px;margin:0 auto;padding:32px 24px 64px}
h1{font-size:27px;margin:0 0 4px;letter-spacing:-.01em}
h2{font-size:20px;margin:44px 0 6px;padding-top:14px;border-top:1px solid var(--line)}
h3{font-size:14px;margin:0 0 6px;font-weight:600}
p{margin:6px 0;max-width:78ch}
.soft{color:var(--soft)}.small{font-size:13px}
.cards{display:grid;gap:12px;grid-template-columns:repeat(auto-fit,minmax(340px,1fr));margin:14px 0}
.card{background:var(--card);border:1px solid var(--line);border-left:4px solid var(--link);border-radius:8px;padding:12px 16px}
.card.check{background:var(--warn-card);border-left-color:var(--warn)}
.card b{display:block;margin-bottom:3px}.card p{font-size:13.5px;margin:4px 0;overflow-wrap:anywhere}
.tag{float:right;font-size:11.5px;color:var(--warn);border:1px solid;border-radius:99px;padding:0 8px;margin-left:8px}
.maps{display:flex;flex-wrap:wrap;gap:22px 34px;margin:14px 0;align-items:flex-start}
figure{margin:0;max-width:100%;overflow-x:auto}
.table{overflow-x:auto;margin:12px 0}
table{border-collapse:collapse;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{padding:4px 12px 4px 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{font-weight:600;color:var(--soft);vertical-align:bottom}
th:first-child,td:first-child{text-align:left;padding-right:20px}
td.bar{background:linear-gradient(90deg,var(--bar) var(--w,0%),transparent 0) no-repeat left 88%/100% 3px}
details{margin:8px 0}summary{cursor:pointer;color:var(--link)}
dt{font-weight:600;margin-top:8px}dd{margin:0;max-width:78ch;color:var(--soft)}
svg{display:block}svg text{font-size:11px;fill:var(--soft)}svg .label{fill:var(--text)}
svg rect.cell{stroke:var(--ground);stroke-width:1}svg rect.cell:hover{stroke:var(--text);stroke-width:2}
svg rect.zero{fill:transparent;stroke:var(--line);stroke-dasharray:2 2}svg rect.none{fill:var(--line);opacity:.35}
@media (prefers-color-scheme:dark){:root{--ground:#0f1319;--card:#171d26;--text:#e9edf3;--soft:#9ba7b7;--line:#2c3542;
--link:#6cb2f5;--warn:#f2955c;--warn-card:#241a15;--bar:#2f5d8c}}
@media print{main{max-width:none}details{display:block}}
";

/// The whole style of the page.
pub(super) fn css() -> String {
    let mut css = PAGE.to_owned();
    css.push_str(&ramps(0));
    let _ = write!(css, "@media (prefers-color-scheme:dark){{{}}}", ramps(1));
    css
}

/// `.s0` to `.s12` and `.d0` to `.d12`.
fn ramps(theme: usize) -> String {
    let mut css = String::new();
    for (name, stops) in [('s', SEQUENTIAL[theme]), ('d', DIVERGING[theme])] {
        for step in 0..STEPS {
            let [r, g, b] = between(stops, step as f64 / (STEPS - 1) as f64);
            let _ = writeln!(css, ".{name}{step}{{fill:#{r:02x}{g:02x}{b:02x}}}");
        }
    }
    css
}

fn between(stops: [Colour; 3], t: f64) -> Colour {
    let (from, to, t) =
        if t < 0.5 { (stops[0], stops[1], t * 2.0) } else { (stops[1], stops[2], t * 2.0 - 1.0) };
    let mix = |i: usize| (f64::from(from[i]) * (1.0 - t) + f64::from(to[i]) * t).round() as u8;
    [mix(0), mix(1), mix(2)]
}
