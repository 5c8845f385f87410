//! Line charts as SVG: a few lines over logarithmic axes, named at their ends.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 110.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 56.0;
/// Told apart without colour vision as well (Okabe and Ito).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000"];

pub struct Axis {
    pub title: String,
    pub from: f64,
    pub to: f64,
    /// Where a mark stands, and what it says.
    pub marks: Vec<(f64, String)>,
    pub logarithmic: bool,
}

impl Axis {
    /// From 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let scale = |v: f64| if self.logarithmic { v.max(f64::MIN_POSITIVE).log10() } else { v };
        (scale(value) - scale(self.from)) / (scale(self.to) - scale(self.from))
    }
}

pub struct Chart {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
}

impl Chart {
    pub fn svg(&self) -> String {
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
             <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>\n",
            self.title
        );
        for (value, text) in &self.y.marks {
            let y = self.down(*value);
            let _ = writeln!(
                out,
                "<path d=\"M{LEFT} {y:.1}H{:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0
            );
        }
        for (value, text) in &self.x.marks {
            let x = self.across(*value);
            let bottom = HEIGHT - BOTTOM;
            let _ = writeln!(
                out,
                "<path d=\"M{x:.1} {TOP}V{bottom:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                bottom + 16.0
            );
        }
        let middle = (LEFT + WIDTH - RIGHT) / 2.0;
        let _ = writeln!(
            out,
            "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(16 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            HEIGHT - 14.0,
            self.x.title,
            (TOP + HEIGHT - BOTTOM) / 2.0,
            self.y.title
        );
        self.draw_lines(&mut out);
        out.push_str("</svg>\n");
        out
    }

    fn draw_lines(&self, out: &mut String) {
        let mut labels: Vec<(f64, &str, &str)> = Vec::new();
        for ((name, points), colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let inside = |point: &&(f64, f64)| (-0.001..=1.001).contains(&self.y.place(point.1));
            let mut path = String::new();
            let mut last = None;
            for point in points.iter().filter(inside) {
                let (x, y) = (self.across(point.0), self.down(point.1));
                let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { "M" } else { "L" });
                last = Some(y);
            }
            let _ =
                writeln!(out, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
            labels.extend(last.map(|y| (y, name.as_str(), *colour)));
        }
        // Names that would lie over each other move down.
        labels.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut free = TOP;
        for (y, name, colour) in labels {
            let at = y.max(free);
            free = at + 14.0;
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>",
                WIDTH - RIGHT + 6.0,
                at + 4.0
            );
        }
    }

    fn across(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn down(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - TOP - BOTTOM)
    }
}
