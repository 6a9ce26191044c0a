//! Puts a tree together from its root, fetching as few inner nodes as possible.

use super::boundary::Limits;
use super::{Child, ChunkError, HEIGHT_MAX, INNER_PIECES_MAX, Tree, decode_inner};

/// A tree being put together from its root. Asks only for inner nodes that the known tree does not have, and never
/// for leaves.
///
/// Nodes come from outside and are checked: hashes, order, and that counts and first keys are those the parent says.
/// So the memory taken is bounded by what the root says, and a finished tree is sound; that its leaves hold what
/// they should is checked when they are opened ([`Child::open_leaf`]).
#[derive(Debug)]
pub struct Assembly<'a> {
    known: &'a Tree,
    height: usize,
    piece_bytes: usize,
    /// The complete levels, the root's first.
    above: Vec<Vec<Child>>,
    /// The level below them, as far as it is known.
    filling: Vec<Child>,
    /// How many nodes of the last complete level have their children in `filling`.
    opened: usize,
}

impl<'a> Assembly<'a> {
    /// Begins with a root that is trusted (it was signed), and the height of its tree.
    ///
    /// # Errors
    /// If the height is above [`HEIGHT_MAX`] or does not fit the root.
    pub fn new(root: Option<Child>, height: u8, known: &'a Tree) -> Result<Self, ChunkError> {
        Self::within(&Limits::STORED, root, height, known)
    }

    pub(super) fn within(
        limits: &Limits,
        root: Option<Child>,
        height: u8,
        known: &'a Tree,
    ) -> Result<Self, ChunkError> {
        if height > HEIGHT_MAX || root.is_some() != (height > 0) {
            return Err(ChunkError::Height(height));
        }
        let mut assembly = Self {
            known,
            height: usize::from(height),
            piece_bytes: limits.piece_bytes,
            above: Vec::new(),
            filling: Vec::new(),
            opened: 0,
        };
        if let Some(root) = root {
            assembly.check_child(assembly.height - 1, &root)?;
            assembly.above.push(vec![root]);
            assembly.open_known()?;
        }
        Ok(assembly)
    }

    /// The next inner node to fetch; `None` if the tree is complete.
    pub fn wants(&self) -> Option<&Child> {
        if self.above.len() == self.height {
            return None;
        }
        self.above.last()?.get(self.opened)
    }

    /// Takes the content of the node wanted: its pieces, joined.
    ///
    /// # Errors
    /// [`ChunkError::Hash`] if the content is not that of the node, which is still wanted then; [`ChunkError::NotWanted`]
    /// if no node is. Any other says that the tree itself is broken: no content will do.
    pub fn give(&mut self, content: &[u8]) -> Result<(), ChunkError> {
        let wanted = self.wants().ok_or(ChunkError::NotWanted)?.clone();
        wanted.check(content, self.piece_bytes)?;
        let children = decode_inner(content)?;
        let below = self.height - self.above.len() - 1;
        for child in &children {
            self.check_child(below, child)?;
        }
        let sum = |of: fn(&Child) -> u64| {
            children
                .iter()
                .try_fold(0_u64, |sum, child| sum.checked_add(of(child)))
        };
        let agrees = sum(|child| child.entities) == Some(wanted.entities)
            && sum(|child| child.bytes) == Some(wanted.bytes);
        if !agrees {
            return Err(ChunkError::Disagrees);
        }
        self.append(&wanted, &children)?;
        self.open_known()
    }

    /// The tree.
    ///
    /// # Errors
    /// If a node is still wanted.
    pub fn finish(self) -> Result<Tree, ChunkError> {
        if self.above.len() < self.height {
            return Err(ChunkError::Incomplete);
        }
        let mut levels = self.above;
        levels.reverse();
        Ok(Tree::from_levels(levels))
    }

    /// Opens nodes until one is wanted or the tree is complete.
    fn open_known(&mut self) -> Result<(), ChunkError> {
        let known = self.known;
        while self.above.len() < self.height {
            let level = self.height - self.above.len();
            let nodes = self.above.last().map_or(&[][..], Vec::as_slice);
            match nodes.get(self.opened).cloned() {
                None => {
                    self.above.push(std::mem::take(&mut self.filling));
                    self.opened = 0;
                }
                Some(node) => match known.children(level, &node) {
                    Some(children) => self.append(&node, children)?,
                    None => return Ok(()),
                },
            }
        }
        Ok(())
    }

    /// Appends the children of `node`: they begin with its first key and stay below that of the node after it.
    fn append(&mut self, node: &Child, children: &[Child]) -> Result<(), ChunkError> {
        let after = self
            .above
            .last()
            .and_then(|nodes| nodes.get(self.opened + 1));
        let fits = |first: &Child, last: &Child| {
            first.first == node.first && after.is_none_or(|after| last.first < after.first)
        };
        let (Some(first), Some(last)) = (children.first(), children.last()) else {
            return Err(ChunkError::Empty);
        };
        if !fits(first, last) {
            return Err(ChunkError::Disagrees);
        }
        self.filling.extend_from_slice(children);
        self.opened += 1;
        Ok(())
    }

    /// Checks what bounds the fetching of a node at `level`.
    fn check_child(&self, level: usize, child: &Child) -> Result<(), ChunkError> {
        let pieces = child.pieces.len();
        let sound = match level {
            0 => child.bytes > 0 && pieces as u64 == child.bytes.div_ceil(self.piece_bytes as u64),
            _ => (1..=INNER_PIECES_MAX).contains(&pieces),
        };
        if sound && child.entities > 0 {
            Ok(())
        } else {
            Err(ChunkError::Disagrees)
        }
    }
}
