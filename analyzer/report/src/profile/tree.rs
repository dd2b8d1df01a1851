//! Merges stacks into a tree that begins with the outermost frames. The weight of a frame is the sum of the
//! weights of all stacks that contain this frame.

use std::collections::HashMap;

/// One frame, and all frames that it called.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// The name of the function. If the name of the function is unknown, `name` has the module and the
    /// offset.
    pub(super) name: String,
    /// The sum of the weights of all stacks that contain the frame of this node.
    pub(super) weight: i128,
    pub(super) children: Vec<Node>,
    by_name: HashMap<String, usize>,
}

impl Node {
    /// Adds a stack, outermost frame first.
    pub(super) fn add(&mut self, frames: impl Iterator<Item = String>, weight: i128) {
        self.weight += weight;
        let mut node = self;
        for name in frames {
            let index = match node.by_name.get(&name) {
                Some(&index) => index,
                None => {
                    node.by_name.insert(name.clone(), node.children.len());
                    node.children.push(Node { name, ..Node::default() });
                    node.children.len() - 1
                }
            };
            node = &mut node.children[index];
            node.weight += weight;
        }
    }

    /// Sorts the children of every node: the node with the greatest weight comes first. Nodes of equal weight
    /// are sorted by name.
    pub(super) fn sort(&mut self) {
        self.by_name.clear();
        self.children.sort_by(|a, b| b.weight.cmp(&a.weight).then_with(|| a.name.cmp(&b.name)));
        self.children.iter_mut().for_each(Node::sort);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_with_a_common_beginning_share_its_frames() {
        let mut root = Node::default();
        let stack = |names: &'static str| names.split(' ').map(str::to_owned);
        root.add(stack("main serve parse"), 3);
        root.add(stack("main serve send"), 5);
        root.add(stack("start"), 1);
        root.sort();
        let seen: Vec<_> = root.children.iter().map(|node| (node.name.as_str(), node.weight)).collect();
        assert_eq!((root.weight, seen), (9, vec![("main", 8), ("start", 1)]));
        let serve = &root.children[0].children[0];
        let leaves: Vec<_> = serve.children.iter().map(|node| (node.name.as_str(), node.weight)).collect();
        assert_eq!(leaves, [("send", 5), ("parse", 3)]);
    }
}
