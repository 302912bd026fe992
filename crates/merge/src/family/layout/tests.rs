//! Layouts by hand, and that nothing overlaps.

use super::*;

fn graph(count: usize, edges: Vec<(usize, usize)>) -> Graph {
    let arriving = |node| edges.iter().filter(|edge| edge.1 == node).count() as f64;
    Graph {
        sizes: (0..count)
            .map(|n| {
                (
                    120.0 + (n % 7) as f64 * 20.0,
                    (40.0 + (n % 3) as f64 * 30.0).max(arriving(n) * PITCH),
                )
            })
            .collect(),
        edges: edges.iter().map(|(a, b)| (*a, *b, 60.0 + (b % 5) as f64 * 12.0)).collect(),
        order: (0..count).collect(),
    }
}

/// Boxes apart, lines outside all boxes, labels apart: they stand above the last level of their line.
fn check(graph: &Graph, layout: &Layout) {
    let apart = |a: &Rect, b: &Rect| {
        a.x + a.width <= b.x
            || b.x + b.width <= a.x
            || a.y + a.height <= b.y
            || b.y + b.height <= a.y
    };
    for (place, a) in layout.boxes.iter().enumerate() {
        assert!(a.x >= 0.0 && a.y >= 0.0);
        assert!(a.x + a.width <= layout.width && a.y + a.height <= layout.height);
        for b in &layout.boxes[place + 1..] {
            assert!(apart(a, b), "{a:?} {b:?}");
        }
    }
    let mut labels = Vec::new();
    for (line, (parent, child, label)) in layout.lines.iter().zip(&graph.edges) {
        let (start, end) = (line[0], line[line.len() - 1]);
        let (from, to) = (layout.boxes[*parent], layout.boxes[*child]);
        assert_eq!(start.from, from.x + from.width);
        assert_eq!(end.to, to.x);
        assert!(end.y > to.y && end.y < to.y + to.height && end.to - end.from >= *label);
        for two in line.windows(2) {
            assert!(two[0].to < two[1].from, "a line turns between columns");
        }
        for level in line {
            let strip =
                Rect { x: level.from, y: level.y, width: level.to - level.from, height: 0.0 };
            assert!(layout.boxes.iter().all(|rect| apart(rect, &strip)), "{strip:?}");
        }
        labels.push(Rect { x: end.to - label, y: end.y - 13.0, width: *label, height: 12.0 });
    }
    for (place, a) in labels.iter().enumerate() {
        assert!(labels[place + 1..].iter().all(|b| apart(a, b)));
        assert!(layout.boxes.iter().all(|b| apart(a, b)));
        let through = layout.lines.iter().flatten().any(|level| {
            level.y > a.y
                && level.y < a.y + a.height
                && level.from < a.x + a.width
                && level.to > a.x
        });
        assert!(!through, "a line goes through a label");
    }
}

#[test]
fn a_diamond_is_level() {
    let graph = graph(4, vec![(0, 1), (0, 2), (1, 3), (2, 3)]);
    let layout = layout(&graph);
    check(&graph, &layout);
    let middle = |n: usize| layout.boxes[n].y + layout.boxes[n].height / 2.0;
    assert!((middle(0) - middle(3)).abs() < 1.0, "{} {}", middle(0), middle(3));
    assert_eq!(layout.boxes[1].x, layout.boxes[2].x);
}

#[test]
fn roots_stand_before_their_children() {
    // 0 -> 1 -> 2 -> 3, and 4 -> 3.
    let graph = graph(5, vec![(0, 1), (1, 2), (2, 3), (4, 3)]);
    let layout = layout(&graph);
    check(&graph, &layout);
    assert_eq!(layout.boxes[4].x, layout.boxes[2].x);
}

#[test]
fn two_hundred_models_do_not_overlap() {
    for seed in 0..8u64 {
        let mut state = seed * 7919 + 1;
        let mut next = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let mut edges = Vec::new();
        for child in 20..200 {
            let mut parents: Vec<usize> = (0..=next(5)).map(|_| next(child)).collect();
            parents.sort_unstable();
            parents.dedup();
            edges.extend(parents.into_iter().map(|parent| (parent, child)));
        }
        let graph = graph(200, edges);
        check(&graph, &layout(&graph));
    }
}

#[test]
fn nothing_and_one() {
    let empty = layout(&graph(0, Vec::new()));
    assert!(empty.width > 0.0 && empty.height > 0.0);
    let one = graph(1, Vec::new());
    check(&one, &layout(&one));
}
