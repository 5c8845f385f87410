//! The tables and pictures of net/DURABILITY.md.

use anyhow::{Context as _, Result};

use crate::chain::{Code, annual_loss, beyond, nines};
use crate::network::{World, live};
use holdfast_tests::plot::{Axis, Chart};

const HOURS_A_YEAR: f64 = 365.25 * 24.0;
/// What is compared: the default, and what a drive with more providers may choose.
const CODES: [Code; 7] = [
    Code::copies(2),
    Code::copies(3),
    Code::copies(4),
    Code::stripe(3, 2),
    Code::stripe(4, 3),
    Code::stripe(8, 4),
    Code::stripe(10, 6),
];
/// From a loss to its rebuilt slot, on average.
const REPAIRS: [(f64, &str); 6] = [
    (1.0 / 6.0, "10 min"),
    (1.0, "1 hour"),
    (24.0, "1 day"),
    (24.0 * 7.0, "1 week"),
    (24.0 * 30.0, "30 days"),
    (24.0 * 90.0, "90 days"),
];
/// Mean lives of a provider, years.
const LIVES: [(f64, &str); 3] = [(1.0, "1 year"), (3.0, "3 years"), (10.0, "10 years")];
const TARGET_NINES: f64 = 11.0;
/// The largest number of losses that is looked for.
const PARITY_MAX: u32 = 20;

/// Name of each table and its text.
pub fn tables() -> Vec<(&'static str, String)> {
    vec![
        ("nines", nines_table()),
        ("eleven", eleven_table()),
        ("vanish", vanish_table()),
        ("cost", cost_table()),
        ("network", network_table(1)),
    ]
}

/// Puts a table between its marks.
pub fn replace(text: &str, name: &str, table: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- table:{name} -->\n"), format!("<!-- end:{name} -->"));
    let (before, rest) = text.split_once(&begin).with_context(|| format!("no place for the table {name}"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("no end of the table {name}"))?;
    Ok(format!("{before}{begin}{table}{end}{after}"))
}

fn row(cells: impl IntoIterator<Item = String>) -> String {
    cells.into_iter().fold("|".to_owned(), |line, cell| line + " " + &cell + " |") + "\n"
}

fn head(cells: impl IntoIterator<Item = String>) -> String {
    let cells: Vec<String> = cells.into_iter().collect();
    let rule = "|---".repeat(cells.len()) + "|\n";
    row(cells) + &rule
}

fn nines_of(code: Code, life: f64, repair_hours: f64) -> f64 {
    nines(annual_loss(code, 1.0 / life, repair_hours / HOURS_A_YEAR))
}

fn nines_table() -> String {
    let titles = REPAIRS.iter().map(|(_, name)| (*name).to_owned());
    let mut out = head(["mean life of a provider, policy".to_owned()].into_iter().chain(titles));
    for (life, life_name) in LIVES {
        for code in CODES {
            let cells = REPAIRS.iter().map(|(hours, _)| format!("{:.1}", nines_of(code, life, *hours)));
            out += &row([format!("{life_name}, {}", code.name())].into_iter().chain(cells));
        }
    }
    out
}

/// The fewest losses to survive for eleven nines.
fn eleven_table() -> String {
    let titles = REPAIRS.iter().map(|(_, name)| (*name).to_owned());
    let mut out = head(["mean life of a provider, data slots".to_owned()].into_iter().chain(titles));
    for (life, life_name) in LIVES {
        for data in [1, 3, 4, 10] {
            let cells = REPAIRS.iter().map(|(hours, _)| {
                let enough =
                    |parity: &u32| nines_of(Code::stripe(data, *parity), life, *hours) >= TARGET_NINES;
                (1..=PARITY_MAX).find(enough).map_or_else(|| "-".to_owned(), |parity| parity.to_string())
            });
            let slots = if data == 1 { "copies".to_owned() } else { format!("k = {data}") };
            out += &row([format!("{life_name}, {slots}")].into_iter().chain(cells));
        }
    }
    out
}

fn vanish_table() -> String {
    let shares = [0.01, 0.05, 0.1, 0.2, 0.3, 0.5];
    let titles = shares.iter().map(|share| format!("{:.0} %", share * 100.0));
    let mut out = head(["gone at once, for ever".to_owned()].into_iter().chain(titles));
    for code in CODES {
        let cells = shares.iter().map(|share| percent(beyond(code, *share)));
        out += &row([code.name()].into_iter().chain(cells));
    }
    out
}

fn percent(chance: f64) -> String {
    match chance * 100.0 {
        p if p >= 1.0 => format!("{p:.1} %"),
        p if p >= 0.001 => format!("{p:.3} %"),
        p => format!("{p:.0e} %"),
    }
}

fn cost_table() -> String {
    let titles = [
        "policy",
        "stored for a byte",
        "moved for a TB and year, life 1 year",
        "3 years",
        "10 years",
        "not readable, providers up 90 %",
        "98 %",
        "99.9 %",
    ];
    let mut out = head(titles.map(str::to_owned));
    for code in CODES {
        let traffic = LIVES.map(|(life, _)| format!("{:.2} TB", code.repair_traffic(1.0 / life)));
        let dark = [0.1, 0.02, 0.001].map(|down| percent(beyond(code, down)));
        let cells = [code.name(), format!("{:.2}", code.expansion())].into_iter().chain(traffic).chain(dark);
        out += &row(cells);
    }
    out
}

/// 10,000 providers, ten years; a thousand failure domains of ten, one in a hundred of which goes up in flames each year.
pub fn network_table(seed: u64) -> String {
    let titles = [
        "policy",
        "notice",
        "stripe-years",
        "slots lost",
        "moved for a TB and year",
        "slowest repair",
        "stripes lost",
        "the chain foretells",
    ];
    let mut out = head(titles.map(str::to_owned));
    let cases = [
        (Code::copies(3), 1.0, "1 day"),
        (Code::stripe(3, 2), 1.0, "1 day"),
        (Code::stripe(8, 4), 1.0, "1 day"),
        (Code::copies(3), 30.0, "30 days"),
        (Code::stripe(3, 2), 30.0, "30 days"),
        (Code::stripe(8, 4), 30.0, "30 days"),
    ];
    for (code, days, notice_name) in cases {
        let world = World {
            providers: 10_000,
            stripes: 200_000 / code.slots(),
            code,
            life: 3.0,
            notice: days / 365.25,
            // 20 slots a provider stand for 2 TB; at 20 Mbit/s they are received in 9.3 days.
            slots_a_year: 20.0 / (9.3 / 365.25),
            disasters: 0.01,
            domains: 1_000,
            years: 10.0,
            seed,
        };
        let seen = live(world);
        let loss = 1.0 / world.life + world.disasters;
        let foretold = annual_loss(code, loss, world.notice + 1.0 / world.slots_a_year) * seen.exposure;
        let moved =
            seen.rebuilt_slots as f64 * f64::from(code.data + 1) / (f64::from(code.data) * seen.exposure);
        out += &row([
            code.name(),
            notice_name.to_owned(),
            format!("{:.0}", seen.exposure),
            seen.lost_slots.to_string(),
            format!("{moved:.2} TB"),
            format!("{:.1} days", seen.slowest * 365.25),
            seen.lost_stripes.to_string(),
            if foretold < 0.01 { format!("{foretold:.0e}") } else { format!("{foretold:.1}") },
        ]);
    }
    out
}

/// Name of each picture, and it.
pub fn charts() -> Vec<(&'static str, Chart)> {
    vec![("repair", repair_chart()), ("vanish", vanish_chart())]
}

fn nines_marks(most: i32) -> Vec<(f64, String)> {
    (0..=most)
        .step_by(2)
        .map(|n| (10f64.powi(-n), if n == 0 { "1".to_owned() } else { format!("1e-{n}") }))
        .collect()
}

fn repair_chart() -> Chart {
    let hours = |step: i32| 10f64.powf(f64::from(step) / 10.0) / 10.0;
    let line = |code: Code| {
        let points =
            (0..=45).map(|step| (hours(step), annual_loss(code, 1.0 / 3.0, hours(step) / HOURS_A_YEAR)));
        (code.name(), points.collect())
    };
    Chart {
        title: "Chance that a stripe is lost within a year; providers live 3 years on average".to_owned(),
        x: Axis {
            title: "mean time from a loss to its rebuilt slot".to_owned(),
            from: 0.1,
            to: 10f64.powf(3.5),
            marks: REPAIRS.iter().map(|(hours, name)| (*hours, (*name).to_owned())).collect(),
            logarithmic: true,
        },
        y: Axis {
            title: "chance".to_owned(),
            from: 1e-18,
            to: 1.0,
            marks: nines_marks(18),
            logarithmic: true,
        },
        lines: CODES.into_iter().map(line).collect(),
    }
}

fn vanish_chart() -> Chart {
    let share = |step: i32| f64::from(step) / 100.0;
    let line = |code: Code| {
        let points = (1..=60).map(|step| (share(step), beyond(code, share(step))));
        (code.name(), points.collect())
    };
    Chart {
        title: "Share of the stripes that is lost when so many providers vanish at once".to_owned(),
        x: Axis {
            title: "share of the providers".to_owned(),
            from: 0.0,
            to: 0.6,
            marks: (0..=6).map(|tenth| (f64::from(tenth) / 10.0, format!("{} %", tenth * 10))).collect(),
            logarithmic: false,
        },
        y: Axis {
            title: "share of the stripes".to_owned(),
            from: 1e-8,
            to: 1.0,
            marks: nines_marks(8),
            logarithmic: true,
        },
        lines: CODES.into_iter().map(line).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_what_the_model_says() -> Result<()> {
        let page = include_str!("../../net/DURABILITY.md");
        for (name, table) in [
            ("nines", nines_table()),
            ("eleven", eleven_table()),
            ("vanish", vanish_table()),
            ("cost", cost_table()),
        ] {
            assert_eq!(
                replace(page, name, &table)?,
                page,
                "run `durability --write`: the table {name} is another"
            );
        }
        Ok(())
    }

    #[test]
    fn a_table_takes_its_place_and_no_more() -> Result<()> {
        let page = "a\n<!-- table:x -->\nold\n<!-- end:x -->\nb";
        assert_eq!(replace(page, "x", "new\n")?, "a\n<!-- table:x -->\nnew\n<!-- end:x -->\nb");
        assert!(replace(page, "y", "").is_err());
        Ok(())
    }

    #[test]
    fn pictures_have_a_line_for_each_policy() {
        for (name, chart) in charts() {
            let svg = chart.svg();
            assert_eq!(svg.matches("stroke-width=\"2\"").count(), CODES.len(), "{name}");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{name}");
        }
    }
}
