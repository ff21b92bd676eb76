// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {JobEscrow} from "./JobEscrow.sol";
import {ProviderRegistry} from "./ProviderRegistry.sol";

/// @title Offences that a chain can judge
/// @notice Only what signatures alone prove costs stake: a node that signed two receipts for one order. A wrong result is
/// no such thing (it costs pay and score): no contract can tell which of two answers is right.
contract Disputes {
    /// @notice What a node signs for a task (`conun_types::TaskReceipt`).
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

    /// @notice EIP-712 type of a receipt.
    bytes32 public constant RECEIPT_TYPEHASH = keccak256(
        "TaskReceipt(bytes32 orderHash,address provider,bytes32 profile,bytes32 inputsRoot,bytes32 outputsRoot,uint64 rows,uint64 bytes,uint64 units)"
    );

    /// @notice The escrow in whose domain receipts are signed.
    JobEscrow public immutable escrow;
    /// @notice Who holds the stakes.
    ProviderRegistry public immutable registry;
    /// @notice Stake that an offence costs, or all there is.
    uint256 public immutable penalty;

    /// @notice Orders for which a node was convicted: once each.
    mapping(bytes32 orderHash => mapping(address node => bool)) public convicted;

    /// @notice A node signed two receipts for one order.
    event Equivocated(bytes32 indexed orderHash, address indexed node, address indexed reporter, uint256 taken);

    /// @notice The two receipts are no proof: other orders, other providers, or the same words.
    error NoOffence();
    /// @notice The provider did not sign this receipt.
    error BadSignature(address signer);
    /// @notice The node was convicted for this order.
    error Convicted(bytes32 orderHash, address node);

    /// @param escrow_ The escrow in whose domain receipts are signed.
    /// @param penalty_ Stake that an offence costs.
    constructor(JobEscrow escrow_, uint256 penalty_) {
        escrow = escrow_;
        registry = escrow_.registry();
        penalty = penalty_;
    }

    /// @notice Proves that a node signed two different receipts for one order, and takes its operator's stake.
    function proveEquivocation(
        TaskReceipt calldata first,
        bytes calldata firstSignature,
        TaskReceipt calldata second,
        bytes calldata secondSignature
    ) external {
        (bytes32 one, bytes32 other) = (receiptHash(first), receiptHash(second));
        if (first.orderHash != second.orderHash || first.provider != second.provider || one == other) {
            revert NoOffence();
        }
        address node = first.provider;
        if (convicted[first.orderHash][node]) revert Convicted(first.orderHash, node);
        _checkSigned(one, firstSignature, node);
        _checkSigned(other, secondSignature, node);
        convicted[first.orderHash][node] = true;
        uint256 taken = registry.slash(node, penalty, msg.sender);
        emit Equivocated(first.orderHash, node, msg.sender, taken);
    }

    function _checkSigned(bytes32 hash, bytes calldata signature, address node) private view {
        bytes32 digest = MessageHashUtils.toTypedDataHash(escrow.domainSeparator(), hash);
        (address signer, ECDSA.RecoverError failed,) = ECDSA.tryRecover(digest, signature);
        if (failed != ECDSA.RecoverError.NoError || signer != node) revert BadSignature(signer);
    }

    /// @notice `hashStruct` of a receipt, as nodes sign it.
    function receiptHash(TaskReceipt calldata receipt) public pure returns (bytes32) {
        return keccak256(
            abi.encode(
                RECEIPT_TYPEHASH,
                receipt.orderHash,
                receipt.provider,
                receipt.profile,
                receipt.inputsRoot,
                receipt.outputsRoot,
                receipt.rows,
                receipt.bytes_,
                receipt.units
            )
        );
    }
}
