//! The medians as bars, as an SVG for the README.

use crate::{
    hits::{Burst, Bursts, LOADS},
    peers::Peer,
    statistics::spread,
};

const ROW: usize = 22;
const LABELS: f64 = 240.0;
const WIDTH: f64 = 760.0;

/// CPU per call of everybody under both loads.
pub(crate) fn svg(bursts: &Bursts) -> String {
    let median = |peer: Peer, load| {
        bursts.get(&(peer.name(), load)).map(|bursts| spread(bursts.iter().map(Burst::cpu_per_call)).median)
    };
    let all = Peer::ALL.into_iter().flat_map(|peer| [0, 1].map(|load| median(peer, load)));
    let longest = all.flatten().fold(1.0, f64::max);
    let (mut rows, mut y) = (String::new(), 0);
    for (load, (connections, streams)) in LOADS.into_iter().enumerate() {
        y += 2 * ROW;
        let title = format!("CPU per call, µs: {connections} connections × {streams} streams");
        rows += &format!("<text x='8' y='{y}' font-weight='bold'>{title}</text>\n");
        for peer in Peer::ALL {
            let Some(value) = median(peer, load) else { continue };
            y += ROW;
            let colour = if peer == Peer::Gateway { "#c2410c" } else { "#64748b" };
            let (bar, top) = (value / longest * (WIDTH - LABELS - 70.0), y - 14);
            rows += &format!("<text x='8' y='{y}'>{}</text>\n", peer.title());
            rows += &format!("<rect x='{LABELS}' y='{top}' width='{bar:.1}' height='17' fill='{colour}'/>\n");
            rows += &format!("<text x='{:.1}' y='{y}'>{value:.1}</text>\n", LABELS + bar + 6.0);
        }
    }
    let height = y + ROW;
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' font-family='sans-serif' \
         font-size='13'>\n<rect width='{WIDTH}' height='{height}' fill='white'/>\n{rows}</svg>\n"
    )
}
