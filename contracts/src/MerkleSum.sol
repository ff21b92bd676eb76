// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Merkle trees that also add up
/// @notice Every node carries the sum of the leaves below it, and the committed root binds the total and the number of
/// leaves, so that a proof of one leaf also proves that the total is the sum of all. The three kinds of hash start with
/// different bytes: none can be passed off as another. `conun` computes the same trees in Rust.
library MerkleSum {
    /// @notice A node of a tree.
    /// @param hash Of a leaf or of two children.
    /// @param sum Of the leaves below.
    struct Node {
        bytes32 hash;
        uint128 sum;
    }

    uint8 private constant LEAF = 0;
    uint8 private constant INNER = 1;
    uint8 private constant ROOT = 2;

    /// @notice The proof has a wrong shape: no such leaf, or too many or too few siblings.
    error BadProof();

    /// @notice The node of a leaf.
    /// @param item What the leaf stands for.
    /// @param sum What it adds.
    function leaf(bytes32 item, uint128 sum) internal pure returns (Node memory) {
        return Node(keccak256(abi.encodePacked(LEAF, item, sum)), sum);
    }

    /// @notice The parent of two nodes. Reverts where their sum overflows.
    function join(Node memory left, Node memory right) internal pure returns (Node memory) {
        bytes32 hash = keccak256(abi.encodePacked(INNER, left.hash, left.sum, right.hash, right.sum));
        return Node(hash, left.sum + right.sum);
    }

    /// @notice The root that is committed to.
    /// @param top The one node that is left.
    /// @param count Leaves of the tree.
    function seal(Node memory top, uint32 count) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(ROOT, top.hash, top.sum, count));
    }

    /// @notice The root of a tree, and its total; an empty tree's are zero. It uses up `nodes`.
    /// @param nodes The leaves' nodes, in order.
    function rootOf(Node[] memory nodes) internal pure returns (bytes32 root, uint128 total) {
        uint256 width = nodes.length;
        if (width == 0) return (0, 0);
        while (width > 1) {
            for (uint256 i = 0; i < width / 2; i++) {
                nodes[i] = join(nodes[2 * i], nodes[2 * i + 1]);
            }
            // The last of an odd level has no sibling, and moves up as it is.
            if (width % 2 == 1) nodes[width / 2] = nodes[width - 1];
            width = (width + 1) / 2;
        }
        // No block has the gas for 2^32 nodes.
        // forge-lint: disable-next-line(unsafe-typecast)
        return (seal(nodes[0], uint32(nodes.length)), nodes[0].sum);
    }

    /// @notice The root of the one tree in which a leaf stands at `index` among `count`, with these siblings. The number of
    /// leaves gives the tree its shape, so that an index has one path only.
    /// @param node The leaf's node.
    /// @param siblings From the bottom up; a level where the node moves up as it is has none.
    function rootWith(Node memory node, uint256 index, uint32 count, Node[] calldata siblings)
        internal
        pure
        returns (bytes32 root, uint128 total)
    {
        if (index >= count) revert BadProof();
        uint256 used = 0;
        for (uint256 width = count; width > 1; width = (width + 1) / 2) {
            bool alone = index == width - 1 && width % 2 == 1;
            if (!alone) {
                if (used == siblings.length) revert BadProof();
                Node memory sibling = siblings[used++];
                node = index % 2 == 1 ? join(sibling, node) : join(node, sibling);
            }
            index /= 2;
        }
        if (used != siblings.length) revert BadProof();
        return (seal(node, count), node.sum);
    }
}
