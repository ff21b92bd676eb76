// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {JobEscrow} from "./JobEscrow.sol";
import {MerkleSum} from "./MerkleSum.sol";
import {ProviderRegistry} from "./ProviderRegistry.sol";

/// @title Offences that a chain can judge
/// @notice Only what a node's own signatures prove costs stake: two receipts for one order, a claim for other units than
/// the receipt's, an order claimed twice. A wrong result is no such thing (it costs pay and score): no contract can tell
/// which of two answers is right.
contract Disputes {
    /// @notice What a requester signs for a task (`conun_types::TaskOrder`).
    /// @param account The escrow's job that pays.
    /// @param job The requester's job.
    /// @param taskCid Hash of the exact task envelope.
    /// @param provider The node that may fill it.
    /// @param nonce Unique per requester.
    /// @param price Tokens, in the smallest unit, per work unit.
    /// @param deadline Unix seconds after which the requester owes nothing.
    struct TaskOrder {
        bytes32 account;
        bytes32 job;
        bytes32 taskCid;
        address provider;
        uint64 nonce;
        uint128 price;
        uint64 deadline;
    }

    /// @notice What a node signs for a task (`conun_types::TaskReceipt`).
    /// @param orderHash {orderHash} of what it answers.
    /// @param provider The node.
    /// @param profile Hash of the execution profile it ran under.
    /// @param inputsRoot Commitment to what it read.
    /// @param outputsRoot Commitment to what it made.
    /// @param rows Rows out.
    /// @param bytes_ Bytes out.
    /// @param units Work units.
    struct TaskReceipt {
        bytes32 orderHash;
        address provider;
        bytes32 profile;
        bytes32 inputsRoot;
        bytes32 outputsRoot;
        uint64 rows;
        uint64 bytes_;
        uint64 units;
    }

    /// @notice What a node signs for receipts that it wants paid; each receipt is claimed once.
    /// @param account The escrow's job that pays.
    /// @param job The requester's job.
    /// @param stage The stage within it.
    /// @param provider The node.
    /// @param tasks How many receipts.
    /// @param units Their units in all.
    /// @param amount Tokens claimed.
    /// @param receiptsRoot {MerkleSum} root over (order hash, units) of the receipts, whose count is `tasks` and total `units`.
    struct StageClaim {
        bytes32 account;
        bytes32 job;
        uint32 stage;
        address provider;
        uint32 tasks;
        uint64 units;
        uint128 amount;
        bytes32 receiptsRoot;
    }

    /// @notice A receipt with the node's signature.
    struct SignedReceipt {
        TaskReceipt receipt;
        bytes signature;
    }

    /// @notice A claim with the node's signature.
    struct SignedClaim {
        StageClaim claim;
        bytes signature;
    }

    /// @notice Where a receipt stands in a claim's tree.
    /// @param index Its place, from 0.
    /// @param units What the leaf says.
    /// @param siblings From the bottom up.
    struct Inclusion {
        uint32 index;
        uint64 units;
        MerkleSum.Node[] siblings;
    }

    /// @notice A receipt's leaf of a claim's tree.
    struct Leaf {
        bytes32 orderHash;
        uint64 units;
    }

    /// @notice Kinds of offence.
    /// @dev A node is convicted for an order once per kind: each is a lie of its own, and a conviction for one must not
    /// make the others free.
    enum Offence {
        Equivocation,
        BadLeaf,
        DuplicateClaim
    }

    /// @notice EIP-712 type of an order.
    bytes32 public constant ORDER_TYPEHASH = keccak256(
        "TaskOrder(bytes32 account,bytes32 job,bytes32 taskCid,address provider,uint64 nonce,uint128 price,uint64 deadline)"
    );
    /// @notice EIP-712 type of a receipt.
    bytes32 public constant RECEIPT_TYPEHASH = keccak256(
        "TaskReceipt(bytes32 orderHash,address provider,bytes32 profile,bytes32 inputsRoot,bytes32 outputsRoot,uint64 rows,uint64 bytes,uint64 units)"
    );
    /// @notice EIP-712 type of a claim.
    bytes32 public constant CLAIM_TYPEHASH = keccak256(
        "StageClaim(bytes32 account,bytes32 job,uint32 stage,address provider,uint32 tasks,uint64 units,uint128 amount,bytes32 receiptsRoot)"
    );
    /// @notice Bytes of a packed stage record: bytes16 job, uint32 stage, address provider, uint64 units, uint32 tasks,
    /// uint96 amount.
    uint256 public constant RECORD_BYTES = 64;

    /// @notice The escrow in whose domain orders, receipts and claims are signed.
    JobEscrow public immutable escrow;
    /// @notice Who holds the stakes.
    ProviderRegistry public immutable registry;
    /// @notice Stake that an offence costs, or all there is.
    uint256 public immutable penalty;

    /// @notice What nodes were convicted of, by order.
    mapping(bytes32 orderHash => mapping(address node => mapping(Offence kind => bool))) public convicted;

    /// @notice A node was convicted of an offence, and `taken` of its operator's stake is gone.
    event Convicted(
        bytes32 indexed orderHash, address indexed node, Offence indexed kind, address reporter, uint256 taken
    );

    /// @notice What is shown is no offence: other orders, other nodes, or the same words twice.
    error NoOffence();
    /// @notice The node did not sign this.
    error BadSignature(address signer);
    /// @notice The leaf is not in the claim's tree.
    error NotInClaim(bytes32 orderHash);
    /// @notice The node was convicted of this before.
    error AlreadyConvicted(bytes32 orderHash, address node, Offence kind);
    /// @notice The records' length is no multiple of {RECORD_BYTES}.
    error BadRecords(uint256 length);
    /// @notice The registry expects its disputes at another address.
    error Miswired();

    /// @param escrow_ The escrow in whose domain nodes sign.
    /// @param penalty_ Stake that an offence costs.
    constructor(JobEscrow escrow_, uint256 penalty_) {
        escrow = escrow_;
        registry = escrow_.registry();
        penalty = penalty_;
        if (registry.disputes() != address(this)) revert Miswired();
    }

    /// @notice Proves that a node signed two different receipts for one order, and takes its operator's stake.
    function proveEquivocation(SignedReceipt calldata first, SignedReceipt calldata second) external {
        TaskReceipt calldata receipt = first.receipt;
        (bytes32 one, bytes32 other) = (receiptHash(receipt), receiptHash(second.receipt));
        bool alike = receipt.orderHash == second.receipt.orderHash && receipt.provider == second.receipt.provider;
        if (!alike || one == other) revert NoOffence();
        _checkSigned(one, first.signature, receipt.provider);
        _checkSigned(other, second.signature, receipt.provider);
        _convict(receipt.orderHash, receipt.provider, Offence.Equivocation);
    }

    /// @notice Proves that a node claimed other units for an order than its receipt says.
    /// @param claim The claim.
    /// @param leaf Where the order stands in it, and with which units.
    /// @param receipt The same node's receipt for the order.
    function proveBadLeaf(SignedClaim calldata claim, Inclusion calldata leaf, SignedReceipt calldata receipt)
        external
    {
        bytes32 order = receipt.receipt.orderHash;
        address node = receipt.receipt.provider;
        if (node != claim.claim.provider || leaf.units == receipt.receipt.units) revert NoOffence();
        _checkSigned(receiptHash(receipt.receipt), receipt.signature, node);
        _checkClaimed(order, claim, leaf);
        _convict(order, node, Offence.BadLeaf);
    }

    /// @notice Proves that a node claimed an order twice: in two claims, or at two places of one.
    /// @param order The {orderHash} of what was claimed twice.
    /// @param first One claim, and `firstLeaf` where the order stands in it.
    /// @param second The other or the same claim, and `secondLeaf` where the order stands in it.
    function proveDuplicateClaim(
        bytes32 order,
        SignedClaim calldata first,
        Inclusion calldata firstLeaf,
        SignedClaim calldata second,
        Inclusion calldata secondLeaf
    ) external {
        address node = first.claim.provider;
        bool same = claimHash(first.claim) == claimHash(second.claim) && firstLeaf.index == secondLeaf.index;
        if (same || node != second.claim.provider) revert NoOffence();
        _checkClaimed(order, first, firstLeaf);
        _checkClaimed(order, second, secondLeaf);
        _convict(order, node, Offence.DuplicateClaim);
    }

    /// @dev That the node signed the claim, and that the order's leaf is in it. A claim whose root has another count or
    /// total than it says proves nothing, and is not paid either: who pays rebuilds the root from the receipts.
    function _checkClaimed(bytes32 order, SignedClaim calldata signed, Inclusion calldata leaf) private view {
        StageClaim calldata claim = signed.claim;
        _checkSigned(claimHash(claim), signed.signature, claim.provider);
        (bytes32 root, uint128 total) =
            MerkleSum.rootWith(MerkleSum.leaf(order, leaf.units), leaf.index, claim.tasks, leaf.siblings);
        if (root != claim.receiptsRoot || total != claim.units) revert NotInClaim(order);
    }

    function _checkSigned(bytes32 hash, bytes calldata signature, address node) private view {
        bytes32 digest = MessageHashUtils.toTypedDataHash(escrow.domainSeparator(), hash);
        address signer = ECDSA.recover(digest, signature);
        if (signer != node) revert BadSignature(signer);
    }

    function _convict(bytes32 order, address node, Offence kind) private {
        if (convicted[order][node][kind]) revert AlreadyConvicted(order, node, kind);
        convicted[order][node][kind] = true;
        uint256 taken = registry.slash(node, penalty, msg.sender);
        emit Convicted(order, node, kind, msg.sender, taken);
    }

    /// @notice `hashStruct` of an order, as requesters sign it.
    function orderHash(TaskOrder calldata order) external pure returns (bytes32) {
        return keccak256(abi.encode(ORDER_TYPEHASH, order));
    }

    /// @notice `hashStruct` of a receipt, as nodes sign it.
    function receiptHash(TaskReceipt calldata receipt) public pure returns (bytes32) {
        return keccak256(abi.encode(RECEIPT_TYPEHASH, receipt));
    }

    /// @notice `hashStruct` of a claim, as nodes sign it.
    function claimHash(StageClaim calldata claim) public pure returns (bytes32) {
        return keccak256(abi.encode(CLAIM_TYPEHASH, claim));
    }

    /// @notice The root that a settlement of these stage records commits to, and what they add up to.
    /// @param records {RECORD_BYTES} each, as in {JobEscrow-Settled}.
    function recordsRoot(bytes calldata records) external pure returns (bytes32 root, uint128 total) {
        if (records.length % RECORD_BYTES != 0) revert BadRecords(records.length);
        MerkleSum.Node[] memory nodes = new MerkleSum.Node[](records.length / RECORD_BYTES);
        for (uint256 i = 0; i < nodes.length; i++) {
            bytes calldata record = records[i * RECORD_BYTES:(i + 1) * RECORD_BYTES];
            // The amount comes last.
            uint96 amount = uint96(bytes12(record[RECORD_BYTES - 12:]));
            nodes[i] = MerkleSum.leaf(keccak256(record), amount);
        }
        return MerkleSum.rootOf(nodes);
    }

    /// @notice The root that a claim for these receipts commits to, and their units in all.
    function receiptsRoot(Leaf[] calldata leaves) external pure returns (bytes32 root, uint128 total) {
        MerkleSum.Node[] memory nodes = new MerkleSum.Node[](leaves.length);
        for (uint256 i = 0; i < nodes.length; i++) {
            nodes[i] = MerkleSum.leaf(leaves[i].orderHash, leaves[i].units);
        }
        return MerkleSum.rootOf(nodes);
    }
}
