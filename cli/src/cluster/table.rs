//! Tables that a person reads at a glance: columns as wide as they have to be, numbers to the right.

/// Rows under a heading.
#[derive(Debug)]
pub(crate) struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heading: &[&'static str]) -> Self {
        Self { heading: heading.to_vec(), rows: Vec::new() }
    }

    /// Adds a row with as many cells as the heading has.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.heading.len(), "a row fits its heading");
        self.rows.push(cells.into());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text; nothing at all when it has no rows.
    pub(crate) fn render(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let heading = self.heading.iter().map(|&word| word.to_owned()).collect();
        let lines: Vec<&Vec<String>> = std::iter::once(&heading).chain(&self.rows).collect();
        let column = |index: usize| lines.iter().map(move |line| line[index].as_str());
        let widths: Vec<usize> = (0..heading.len()).map(|index| column(index).map(width).max().unwrap_or(0)).collect();
        let numbers: Vec<bool> = (0..heading.len())
            .map(|index| column(index).skip(1).all(|cell| cell.is_empty() || cell.parse::<f64>().is_ok()))
            .collect();
        let mut text = String::new();
        for line in lines {
            let cells = line.iter().enumerate().map(|(index, cell)| {
                let space = " ".repeat(widths[index] - width(cell));
                if numbers[index] { space + cell } else { cell.clone() + &space }
            });
            text += cells.collect::<Vec<_>>().join("  ").trim_end();
            text += "\n";
        }
        text
    }
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_left_and_numbers_right() {
        let mut table = Table::new(&["NAME", "TUNNELS", "SAYS"]);
        assert_eq!(table.render(), "");
        table.row(["brussels".to_owned(), "7".to_owned(), String::new()]);
        table.row(["é".to_owned(), "1234".to_owned(), "late".to_owned()]);
        assert_eq!(table.render(), "NAME      TUNNELS  SAYS\nbrussels        7\né            1234  late\n");
    }
}
