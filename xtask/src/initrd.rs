//! The first root file system of a virtual machine: an archive in the one form that Linux unpacks by itself.
//!
//! ```text
//!   070701 │ 13 numbers of eight hexadecimal digits │ name, 0 │ padding to 4 │ content │ padding to 4 │ … │ TRAILER!!!
//! ```
//! The same input gives the same octets: no time, no owner and no order of a folder comes in.

/// Ends every archive.
const TRAILER: &str = "TRAILER!!!";
const FOLDER_MODE: u32 = 0o040_755;
const FILE_MODE: u32 = 0o100_755;

/// An archive in the making.
///
/// # Source
/// `Documentation/driver-api/early-userspace/buffer-format.rst` of Linux ("newc").
#[derive(Debug, Default)]
pub struct Initrd {
    octets: Vec<u8>,
    folders: Vec<String>,
    entries: u32,
}

impl Initrd {
    /// Adds a file and the folders above it; every file may be run.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            self.folder(&path[..at]);
        }
        self.entry(path, FILE_MODE, content);
    }

    /// Adds a folder unless it is there.
    pub fn folder(&mut self, path: &str) {
        if !self.folders.iter().any(|folder| folder == path) {
            self.folders.push(path.to_owned());
            self.entry(path, FOLDER_MODE, &[]);
        }
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, &[]);
        self.octets
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let len = |octets: usize| u32::try_from(octets).expect("nothing of 4 GiB goes into a machine of 192 MiB");
        let (content_len, name_len) = (len(content.len()), len(path.len() + 1));
        // inode, mode, uid, gid, links, time, length, device and special device in two parts each, length of name, checksum
        let numbers = [self.entries, mode, 0, 0, 1, 0, content_len, 0, 0, 0, 0, name_len, 0];
        self.octets.extend_from_slice(b"070701");
        for number in numbers {
            self.octets.extend_from_slice(format!("{number:08x}").as_bytes());
        }
        self.octets.extend_from_slice(path.as_bytes());
        self.octets.push(0);
        self.pad();
        self.octets.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.octets.resize(self.octets.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_brings_its_folders_once_and_everything_is_padded() {
        let mut initrd = Initrd::default();
        initrd.file("/lib/x/a", b"12345");
        initrd.file("lib/b", b"");
        let octets = initrd.finish();
        assert_eq!(octets.len() % 4, 0);
        assert_eq!(names(&octets), ["lib", "lib/x", "lib/x/a", "lib/b", TRAILER]);
    }

    /// Reads it as the kernel does.
    fn names(mut octets: &[u8]) -> Vec<String> {
        let mut names = Vec::new();
        while !octets.is_empty() {
            assert_eq!(&octets[..6], b"070701");
            let number = |at: usize| {
                let digits = std::str::from_utf8(&octets[6 + 8 * at..14 + 8 * at]).unwrap();
                usize::from_str_radix(digits, 16).unwrap()
            };
            let (content_len, name_len) = (number(6), number(11));
            let content = (110 + name_len).next_multiple_of(4);
            names.push(String::from_utf8(octets[110..110 + name_len - 1].to_vec()).unwrap());
            octets = &octets[(content + content_len).next_multiple_of(4)..];
        }
        names
    }
}
