//! What of the streams outlives the stack: how far each trigger has come, and the dead letters.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Position, StreamError};

/// The file of the positions, below the data.
const POSITIONS: &str = "stream.json";
/// The file of the dead letters, below the data.
pub(super) const DEAD_LETTERS: &str = "dead-letters.jsonl";

/// Positions by the id of the trigger, and dead letters.
pub(super) struct Kept {
    /// In memory only if there is none.
    folder: Option<PathBuf>,
    positions: Mutex<BTreeMap<String, Position>>,
    /// Holds the folder: a write may still be under way when everything else has ended.
    _lock: Option<Arc<File>>,
}

impl Kept {
    /// What is kept in `folder`; in memory if there is none.
    pub(super) fn open(folder: Option<PathBuf>, lock: Option<Arc<File>>) -> Result<Self, StreamError> {
        let positions = match &folder {
            Some(folder) => {
                let path = folder.join(POSITIONS);
                read(&path).map_err(|source| StreamError::Positions { path, source })?
            }
            None => BTreeMap::new(),
        };
        Ok(Self { folder, positions: Mutex::new(positions), _lock: lock })
    }

    /// How far the trigger `id` has come; `None` if there has been none of this name.
    pub(super) fn position(&self, id: &str) -> Option<Position> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied()
    }

    /// Keeps how far the trigger `id` has come. Returns when it is on disk.
    pub(super) fn keep_position(&self, id: &str, position: Position) -> io::Result<()> {
        // Locked until it is written: of two triggers, the later must not be undone by the earlier.
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        positions.insert(id.to_owned(), position);
        let Some(folder) = &self.folder else { return Ok(()) };
        let temporary = folder.join(format!("{POSITIONS}.new"));
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&*positions)?)?;
        file.sync_all()?;
        fs::rename(temporary, folder.join(POSITIONS))
    }

    /// Keeps a dead letter, if data are kept.
    pub(super) fn keep_dead_letter(&self, letter: &serde_json::Value) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let mut file = OpenOptions::new().create(true).append(true).open(folder.join(DEAD_LETTERS))?;
        // In one write, so that two triggers do not mix their lines.
        file.write_all(format!("{letter}\n").as_bytes())
    }

    /// Whether anything is written.
    pub(super) fn is_on_disk(&self) -> bool {
        self.folder.is_some()
    }
}

fn read(path: &Path) -> io::Result<BTreeMap<String, Position>> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_that_were_kept_last() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::open(Some(folder.path().to_owned()), None).unwrap();
        assert_eq!(kept.position("A"), None);
        let far = Position::after("100000000000000000007").unwrap();
        kept.keep_position("A", Position::BEGINNING).unwrap();
        kept.keep_position("B", Position::BEGINNING).unwrap();
        kept.keep_position("A", far).unwrap();

        let kept = Kept::open(Some(folder.path().to_owned()), None).unwrap();

        assert_eq!(kept.position("A"), Some(far));
        assert_eq!(kept.position("B"), Some(Position::BEGINNING));
        let text = fs::read_to_string(folder.path().join(POSITIONS)).unwrap();
        assert_eq!(text, r#"{"A":"100000000000000000007","B":null}"#);
    }

    #[test]
    fn a_file_that_is_not_of_positions_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(POSITIONS), r#"{"A":"x"}"#).unwrap();
        let error = Kept::open(Some(folder.path().to_owned()), None).err().unwrap().to_string();
        assert!(error.contains("stream.json"), "{error}");
    }
}
