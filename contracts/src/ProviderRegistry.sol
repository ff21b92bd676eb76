// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

/// @title Who provides: operators, their nodes' keys, their stake
/// @notice An operator is a cold key that holds stake. It delegates hot node keys, which sign receipts, and names a
/// payout address. A node belongs to one operator for ever, so that what it signed can be held against that one's
/// stake; a revoked key can no longer earn, yet still be slashed for what it did.
contract ProviderRegistry is EIP712 {
    using SafeERC20 for ERC20Burnable;

    /// @notice What is known of an operator; it fills three words.
    /// @param stake Tokens that can be slashed and are not on their way out: all that vouches for an operator.
    /// @param unbonding Tokens on their way out: slashable while they are here, and they may leave once their time is up.
    /// @param payout Where its nodes' earnings go.
    /// @param releaseAt When `unbonding` may be withdrawn, in Unix seconds.
    /// @param convictions How often it was slashed.
    /// @param paid All that its nodes were paid. Who pays themselves raises it for nothing but gas: weigh it by who paid.
    struct Operator {
        uint128 stake;
        uint128 unbonding;
        address payout;
        uint64 releaseAt;
        uint32 convictions;
        uint256 paid;
    }

    /// @notice A node key.
    /// @param operator Whose it is.
    /// @param revoked Whether it was taken back.
    struct Node {
        address operator;
        bool revoked;
    }

    /// @notice Seconds from asking for stake until it may be withdrawn: longer than any window in which it can be slashed.
    uint64 public constant UNBONDING = 21 days;
    /// @notice Share of a slashed amount that goes to who proved the offence, in percent; the rest is burned, so that
    /// nobody gains by convicting themselves.
    uint256 public constant REWARD_PERCENT = 10;
    /// @notice What a node signs to consent to an operator.
    bytes32 public constant CONSENT_TYPEHASH = keccak256("Consent(address operator)");

    /// @notice The token of all stakes.
    ERC20Burnable public immutable token;
    /// @notice The only contract that may note what was paid.
    address public immutable escrow;
    /// @notice The only contract that may slash.
    address public immutable disputes;

    mapping(address operator => Operator) private _operators;
    mapping(address node => Node) private _nodes;

    /// @notice An operator named its payout address.
    event PayoutSet(address indexed operator, address payout);
    /// @notice Stake was added.
    event Staked(address indexed operator, uint256 amount);
    /// @notice Stake was put on its way out.
    event Unbonding(address indexed operator, uint256 amount, uint64 releaseAt);
    /// @notice Stake left.
    event Withdrawn(address indexed operator, uint256 amount);
    /// @notice A node key was delegated.
    event Delegated(address indexed operator, address indexed node);
    /// @notice A node key was taken back.
    event Revoked(address indexed operator, address indexed node);
    /// @notice Stake was slashed for what `node` did.
    event Slashed(address indexed operator, address indexed node, uint256 amount, address indexed reporter);

    /// @notice A zero address or amount where one is needed.
    error Zero();
    /// @notice More than there is.
    error TooMuch(uint256 asked, uint256 available);
    /// @notice Not before this time.
    error TooEarly(uint64 releaseAt);
    /// @notice The node belongs to an operator already.
    error NodeTaken(address node, address operator);
    /// @notice The node's signature does not consent to this operator.
    error NoConsent(address node);
    /// @notice The caller's nodes do not include this one.
    error NotYourNode(address node);
    /// @notice The node belongs to no operator whose stake could be taken; once it does, it can be.
    error NoOperator(address node);
    /// @notice Only the disputes contract may do this.
    error OnlyDisputes();
    /// @notice Only the escrow may do this.
    error OnlyEscrow();

    /// @dev Escrow and disputes are deployed later, at addresses that their deployer computes beforehand. They check that they
    /// are the ones named here.
    /// @param token_ The token of all stakes; it can be burned, and moves exactly what it is told to.
    /// @param escrow_ The only contract that may note what was paid.
    /// @param disputes_ The only contract that may slash.
    constructor(ERC20Burnable token_, address escrow_, address disputes_) EIP712("Conun", "1") {
        if (address(token_) == address(0) || escrow_ == address(0) || disputes_ == address(0)) revert Zero();
        token = token_;
        escrow = escrow_;
        disputes = disputes_;
    }

    /// @notice Names where the earnings of the caller's nodes go.
    function setPayout(address payout) external {
        if (payout == address(0)) revert Zero();
        _operators[msg.sender].payout = payout;
        emit PayoutSet(msg.sender, payout);
    }

    /// @notice Adds stake from tokens that the caller has approved.
    function stake(uint128 amount) external {
        _stake(amount);
    }

    /// @notice As {stake}, with the approval signed (ERC-2612). A permit that somebody has used before us, or a token without
    /// permits, does no harm: the allowance is what counts.
    function stakeWithPermit(uint128 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external {
        try IERC20Permit(address(token)).permit(msg.sender, address(this), amount, deadline, v, r, s) {} catch {}
        _stake(amount);
    }

    function _stake(uint128 amount) private {
        if (amount == 0) revert Zero();
        _operators[msg.sender].stake += amount;
        emit Staked(msg.sender, amount);
        token.safeTransferFrom(msg.sender, address(this), amount);
    }

    /// @notice Puts stake on its way out. What was on its way already starts its time anew.
    function unstake(uint128 amount) external {
        Operator storage operator = _operators[msg.sender];
        if (amount == 0) revert Zero();
        if (amount > operator.stake) revert TooMuch(amount, operator.stake);
        operator.stake -= amount;
        operator.unbonding += amount;
        operator.releaseAt = uint64(block.timestamp) + UNBONDING;
        emit Unbonding(msg.sender, amount, operator.releaseAt);
    }

    /// @notice Takes out what has unbonded.
    function withdraw() external {
        Operator storage operator = _operators[msg.sender];
        uint256 amount = operator.unbonding;
        if (amount == 0) revert Zero();
        if (block.timestamp < operator.releaseAt) revert TooEarly(operator.releaseAt);
        operator.unbonding = 0;
        emit Withdrawn(msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    /// @notice Makes `node` one of the caller's, with its consent.
    /// @param signature By the node, over `Consent(operator)`: nobody can adopt a stranger's node.
    function delegate(address node, bytes calldata signature) external {
        address owner = _nodes[node].operator;
        if (owner != address(0)) revert NodeTaken(node, owner);
        bytes32 digest = _hashTypedDataV4(keccak256(abi.encode(CONSENT_TYPEHASH, msg.sender)));
        if (ECDSA.recover(digest, signature) != node) revert NoConsent(node);
        _nodes[node].operator = msg.sender;
        emit Delegated(msg.sender, node);
    }

    /// @notice Takes a node key back, for good: it earns nothing from now on.
    function revoke(address node) external {
        if (_nodes[node].operator != msg.sender) revert NotYourNode(node);
        _nodes[node].revoked = true;
        emit Revoked(msg.sender, node);
    }

    /// @notice Takes up to `amount` of the stake behind `node`: first what is staked, then what is on its way out.
    /// @return taken What there was to take.
    function slash(address node, uint256 amount, address reporter) external returns (uint256 taken) {
        if (msg.sender != disputes) revert OnlyDisputes();
        address owner = _nodes[node].operator;
        // Refused rather than noted: a conviction that costs nothing must not use up the proof.
        if (owner == address(0)) revert NoOperator(node);
        Operator storage operator = _operators[owner];
        uint256 fromStake = amount < operator.stake ? amount : operator.stake;
        uint256 rest = amount - fromStake;
        uint256 fromUnbonding = rest < operator.unbonding ? rest : operator.unbonding;
        taken = fromStake + fromUnbonding;
        // Both are at most what is subtracted from.
        // forge-lint: disable-next-line(unsafe-typecast)
        operator.stake -= uint128(fromStake);
        // forge-lint: disable-next-line(unsafe-typecast)
        operator.unbonding -= uint128(fromUnbonding);
        operator.convictions += 1;
        emit Slashed(owner, node, taken, reporter);
        uint256 reward = taken * REWARD_PERCENT / 100;
        token.safeTransfer(reporter, reward);
        token.burn(taken - reward);
    }

    /// @notice Notes that `node` is paid, and says where to. A node without an operator is its own.
    function notePaid(address node, uint256 amount) external returns (address to) {
        if (msg.sender != escrow) revert OnlyEscrow();
        address owner = _nodes[node].operator;
        _operators[owner == address(0) ? node : owner].paid += amount;
        return payoutOf(node);
    }

    /// @notice What is known of an operator.
    function operatorOf(address operator) external view returns (Operator memory) {
        return _operators[operator];
    }

    /// @notice What is known of a node.
    function nodeOf(address node) external view returns (Node memory) {
        return _nodes[node];
    }

    /// @notice Where the earnings of `node` go: its operator's payout address, the operator itself where none was named,
    /// the node itself where it has no operator.
    function payoutOf(address node) public view returns (address) {
        address owner = _nodes[node].operator;
        if (owner == address(0)) return node;
        address payout = _operators[owner].payout;
        return payout == address(0) ? owner : payout;
    }

    /// @notice Whether `node` may be credited further work.
    function mayEarn(address node) external view returns (bool) {
        return !_nodes[node].revoked;
    }
}
