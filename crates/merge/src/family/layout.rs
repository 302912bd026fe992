//! Places for boxes in columns, parents left of their children, and ways for the lines between them.
//!
//! After Sugiyama, Tagawa and Toda, *Methods for Visual Understanding of Hierarchical System Structures* (1981):
//! columns by the longest way from a root; a line that passes a column has a place of its own in it; orders with few
//! crossings by barycentres; and then heights near the neighbours' by isotonic regression, which keeps the order and
//! the distances.

/// Between the boxes of a column.
const GAP: f64 = 22.0;
/// The height that a passing line takes.
const LINE: f64 = 14.0;
/// Between two lines that arrive at a box.
pub(super) const PITCH: f64 = 19.0;
/// The least width in which lines turn.
const TURN: f64 = 56.0;
/// Around the whole.
const MARGIN: f64 = 24.0;
/// How often orders and heights are swept through.
const SWEEPS: usize = 16;

/// What has to be placed.
pub(super) struct Graph {
    /// Width and height of each box, high enough for [`PITCH`] times the lines that arrive.
    pub(super) sizes: Vec<(f64, f64)>,
    /// Parent, child, and the width of the label before the child.
    pub(super) edges: Vec<(usize, usize, f64)>,
    /// The boxes, parents before children.
    pub(super) order: Vec<usize>,
}

/// A box's place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rect {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// A level piece of a line; between the pieces it turns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Level {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) y: f64,
}

pub(super) struct Layout {
    pub(super) boxes: Vec<Rect>,
    /// For each edge its levels from the parent to the child; the label stands on the last one.
    pub(super) lines: Vec<Vec<Level>>,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Boxes and the places of passing lines, alike: the latter come after the former.
struct Items {
    column: Vec<usize>,
    height: Vec<f64>,
    /// The item left of each arriving line and its port, as a distance from the middle.
    left: Vec<Vec<(usize, f64)>>,
    right: Vec<Vec<(usize, f64)>>,
    /// For each edge its items from parent to child.
    ways: Vec<Vec<usize>>,
}

pub(super) fn layout(graph: &Graph) -> Layout {
    let mut items = items(graph);
    let columns = ordered(&items);
    ports(&mut items, &columns, graph.sizes.len());
    let y = heights(&items, &columns);
    place(graph, &items, &columns, &y)
}

fn items(graph: &Graph) -> Items {
    let count = graph.sizes.len();
    let mut column = vec![0; count];
    let mut children = vec![Vec::new(); count];
    let mut parents = vec![0; count];
    for (parent, child, _) in &graph.edges {
        children[*parent].push(*child);
        parents[*child] += 1;
    }
    for &node in &graph.order {
        for &child in &children[node] {
            column[child] = column[child].max(column[node] + 1);
        }
    }
    // A root stands just before its first child.
    for node in (0..count).filter(|node| parents[*node] == 0) {
        if let Some(first) = children[node].iter().map(|child| column[*child]).min() {
            column[node] = first - 1;
        }
    }
    let height = graph.sizes.iter().map(|(_, height)| *height).collect();
    let mut items = Items {
        column,
        height,
        left: vec![Vec::new(); count],
        right: vec![Vec::new(); count],
        ways: Vec::new(),
    };
    for (parent, child, _) in &graph.edges {
        let mut way = vec![*parent];
        for passed in items.column[*parent] + 1..items.column[*child] {
            way.push(items.column.len());
            items.column.push(passed);
            items.height.push(LINE);
            items.left.push(Vec::new());
            items.right.push(Vec::new());
        }
        way.push(*child);
        for two in way.windows(2) {
            items.left[two[1]].push((two[0], 0.0));
            items.right[two[0]].push((two[1], 0.0));
        }
        items.ways.push(way);
    }
    items
}

/// The items of each column from top to bottom, with few crossings.
fn ordered(items: &Items) -> Vec<Vec<usize>> {
    let count = items.column.iter().max().map_or(0, |last| last + 1);
    let mut columns = vec![Vec::new(); count];
    // Families together: each item comes next to those that it is linked with.
    let mut seen = vec![false; items.column.len()];
    for start in 0..items.column.len() {
        let mut waiting = vec![start];
        while let Some(item) = waiting.pop() {
            if !std::mem::replace(&mut seen[item], true) {
                columns[items.column[item]].push(item);
                let links = items.left[item].iter().chain(&items.right[item]).rev();
                waiting.extend(links.map(|(next, _)| *next));
            }
        }
    }
    let mut best = (crossings(items, &columns), columns.clone());
    for sweep in 0..SWEEPS {
        let mut place = places(items, &columns);
        let rightwards = sweep % 2 == 0;
        for step in 0..count {
            let at = if rightwards { step } else { count - 1 - step };
            let links = if rightwards { &items.left } else { &items.right };
            let centre = |item: &usize| {
                let links = &links[*item];
                match links.len() {
                    0 => place[*item],
                    n => links.iter().map(|(next, _)| place[*next]).sum::<f64>() / n as f64,
                }
            };
            let mut keys: Vec<(f64, usize)> = columns[at].iter().map(|i| (centre(i), *i)).collect();
            keys.sort_by(|a, b| a.0.total_cmp(&b.0));
            columns[at] = keys.into_iter().map(|(_, item)| item).collect();
            for (rank, item) in columns[at].iter().enumerate() {
                place[*item] = rank as f64;
            }
        }
        let crossed = crossings(items, &columns);
        if crossed < best.0 {
            best = (crossed, columns.clone());
        }
    }
    best.1
}

fn places(items: &Items, columns: &[Vec<usize>]) -> Vec<f64> {
    let mut place = vec![0.0; items.column.len()];
    for column in columns {
        for (rank, item) in column.iter().enumerate() {
            place[*item] = rank as f64;
        }
    }
    place
}

/// How many pairs of lines cross between columns.
fn crossings(items: &Items, columns: &[Vec<usize>]) -> usize {
    let place = places(items, columns);
    let mut crossed = 0;
    for column in columns {
        // Right ends in the order of left ends: each smaller one after a larger one is a crossing.
        let mut ends: Vec<f64> = Vec::new();
        for item in column {
            let mut own: Vec<f64> = items.right[*item].iter().map(|(i, _)| place[*i]).collect();
            own.sort_by(f64::total_cmp);
            crossed +=
                own.iter().map(|e| ends.len() - ends.partition_point(|o| o <= e)).sum::<usize>();
            for end in own {
                ends.insert(ends.partition_point(|other| *other <= end), end);
            }
        }
    }
    crossed
}

/// Gives each line its port at the box where it arrives, in the order in which the lines come.
fn ports(items: &mut Items, columns: &[Vec<usize>], boxes: usize) {
    let place = places(items, columns);
    for child in 0..boxes {
        let mut left = std::mem::take(&mut items.left[child]);
        left.sort_by(|a, b| place[a.0].total_cmp(&place[b.0]));
        let middle = (left.len() as f64 - 1.0) / 2.0;
        for (rank, (item, port)) in left.iter_mut().enumerate() {
            *port = (rank as f64 - middle) * PITCH;
            // Of two lines between the same two the first without a port.
            let own = items.right[*item].iter_mut().filter(|link| link.0 == child);
            for link in own {
                link.1 = *port;
            }
        }
        items.left[child] = left;
    }
}

/// The middle of each item.
fn heights(items: &Items, columns: &[Vec<usize>]) -> Vec<f64> {
    let mut y = vec![0.0; items.column.len()];
    for column in columns {
        settle(items, column, &mut y);
    }
    for sweep in 0..SWEEPS {
        let last = sweep + 2 >= SWEEPS;
        for step in 0..columns.len() {
            let rightwards = sweep % 2 == 0;
            let column = &columns[if rightwards { step } else { columns.len() - 1 - step }];
            let wished: Vec<(usize, f64)> = column
                .iter()
                .map(|item| {
                    let left = items.left[*item].iter().map(|(i, port)| y[*i] - port);
                    let right = items.right[*item].iter().map(|(i, port)| y[*i] + port);
                    let wishes: Vec<f64> = match (last, rightwards) {
                        (true, _) => left.chain(right).collect(),
                        (_, true) => left.collect(),
                        (_, false) => right.collect(),
                    };
                    let mean = wishes.iter().sum::<f64>() / wishes.len() as f64;
                    (*item, if wishes.is_empty() { y[*item] } else { mean })
                })
                .collect();
            for (item, wish) in wished {
                y[item] = wish;
            }
            settle(items, column, &mut y);
        }
    }
    y
}

/// Moves the items of a column to the nearest heights, by least squares, at which they keep order and distance:
/// pool adjacent violators.
fn settle(items: &Items, column: &[usize], y: &mut [f64]) {
    let mut offsets = Vec::with_capacity(column.len());
    let mut offset = 0.0;
    for (rank, item) in column.iter().enumerate() {
        if rank > 0 {
            offset += f64::midpoint(items.height[column[rank - 1]], items.height[*item]) + GAP;
        }
        offsets.push(offset);
    }
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for (item, offset) in column.iter().zip(&offsets) {
        pools.push((y[*item] - offset, 1));
        while let [.., above, below] = pools[..]
            && above.0 / above.1 as f64 > below.0 / below.1 as f64
        {
            pools.truncate(pools.len() - 2);
            pools.push((above.0 + below.0, above.1 + below.1));
        }
    }
    let means = pools.iter().flat_map(|(sum, n)| std::iter::repeat_n(sum / *n as f64, *n));
    for ((item, offset), mean) in column.iter().zip(&offsets).zip(means) {
        y[*item] = mean + offset;
    }
}

fn place(graph: &Graph, items: &Items, columns: &[Vec<usize>], y: &[f64]) -> Layout {
    let count = graph.sizes.len();
    let top = (0..y.len()).map(|i| y[i] - items.height[i] / 2.0).fold(f64::INFINITY, f64::min);
    let bottom = (0..y.len()).map(|i| y[i] + items.height[i] / 2.0).fold(top, f64::max);
    let y: Vec<f64> = y.iter().map(|y| y - top + MARGIN).collect();

    // For each column where its lines have turned, where its boxes begin and where they end.
    let mut bounds: Vec<(f64, f64, f64)> = Vec::new();
    let mut x = MARGIN;
    for (at, column) in columns.iter().enumerate() {
        let into = graph.edges.iter().filter(|(_, child, _)| items.column[*child] == at);
        let label = into.map(|(.., label)| *label).fold(0.0, f64::max);
        let links = column.iter().flat_map(|item| items.left[*item].iter().map(move |l| (item, l)));
        let steepest = links.map(|(to, (from, port))| (y[*to] + port - y[*from]).abs());
        let turn = TURN + (steepest.fold(0.0, f64::max) * 0.12).min(140.0);
        let turned = if at == 0 { x } else { x + turn };
        let begin = if at == 0 { x } else { turned + label };
        let boxes = column.iter().filter(|item| **item < count);
        let end = begin + boxes.map(|item| graph.sizes[*item].0).fold(0.0, f64::max);
        bounds.push((turned, begin, end));
        x = end;
    }
    let boxes = (0..count).map(|node| {
        let (_, begin, end) = bounds[items.column[node]];
        let height = items.height[node];
        Rect { x: begin, y: y[node] - height / 2.0, width: end - begin, height }
    });
    let lines = items.ways.iter().map(|way| {
        let mut line = Vec::new();
        for (place, item) in way.iter().enumerate() {
            let (turned, begin, end) = bounds[items.column[*item]];
            let last = place + 1 == way.len();
            let port = place.checked_sub(1).map_or(0.0, |before| {
                let mut left = items.left[*item].iter();
                left.find(|(from, _)| *from == way[before]).map_or(0.0, |(_, port)| *port)
            });
            line.push(match (place, last) {
                (0, _) => Level { from: end, to: end, y: y[*item] },
                (_, true) => Level { from: turned, to: begin, y: y[*item] + port },
                (_, false) => Level { from: turned, to: end, y: y[*item] },
            });
        }
        line
    });
    let height = if y.is_empty() { 0.0 } else { bottom - top };
    Layout {
        boxes: boxes.collect(),
        lines: lines.collect(),
        width: x + MARGIN,
        height: height + 2.0 * MARGIN,
    }
}

#[cfg(test)]
mod tests;
