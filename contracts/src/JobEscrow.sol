// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {ProviderRegistry} from "./ProviderRegistry.sol";

/// @title The money of jobs
/// @notice A client deposits for a job. Providers earn *cumulative* amounts that the client signs: a batch of them in a
/// settlement, or one in a voucher. A signature says "this provider has earned so much of this job in all", so that
/// showing it again, or an older one, pays nothing twice. Providers draw what they earned; the client gets back what
/// nobody earned, after a window in which vouchers can still be shown.
contract JobEscrow is EIP712, Ownable, Pausable {
    using SafeERC20 for IERC20;

    /// @notice A job's account; it fills four words.
    /// @param client Who deposited, and gets the rest back.
    /// @param refundAt When the rest may be taken, in Unix seconds; 0 while nobody asked.
    /// @param batches Settlements so far.
    /// @param spender A key that may sign for the client (its coordinator's), or zero.
    /// @param formerUntil Until when the spender before this one may sign too, in Unix seconds.
    /// @param deposit All that was deposited, less what was refunded.
    /// @param earned All that providers have earned.
    /// @param spenderCap Most that `earned` may reach by the spender's signature.
    struct Job {
        address client;
        uint64 refundAt;
        uint32 batches;
        address spender;
        uint64 formerUntil;
        uint128 deposit;
        uint128 earned;
        uint128 spenderCap;
    }

    /// @notice A spender that was replaced, or its cap lowered.
    /// @param spender The key.
    /// @param cap Its cap until then.
    struct Former {
        address spender;
        uint128 cap;
    }

    /// @notice What a provider has of a job; it fills one word.
    /// @param earned All that the client has signed for.
    /// @param drawn What was paid out of it.
    struct Account {
        uint128 earned;
        uint128 drawn;
    }

    /// @notice A provider's earnings of a job, in all.
    /// @param provider Its node key.
    /// @param cumulative All that it has earned of this job, not only in this batch.
    struct Earning {
        address provider;
        uint128 cumulative;
    }

    /// @notice A batch of stage records.
    /// @param job Which job.
    /// @param batch Its number, from 0: batches are settled in order.
    /// @param root Root of the Merkle-sum tree over the stage records.
    /// @param stages How many records.
    struct Batch {
        bytes32 job;
        uint32 batch;
        bytes32 root;
        uint32 stages;
    }

    /// @notice Seconds in which vouchers can still be shown and disputes run after a client has asked for its rest, and for
    /// which a spender's signatures outlive its replacement. Stake unbonds for longer ({ProviderRegistry-UNBONDING}).
    uint64 public constant CHALLENGE_WINDOW = 7 days;
    /// @notice Bytes of a packed stage record in a {Settled} event.
    uint256 public constant RECORD_BYTES = 64;
    /// @notice EIP-712 type of a settlement: the hashes cover the exact bytes of earnings and records.
    bytes32 public constant SETTLEMENT_TYPEHASH = keccak256(
        "Settlement(bytes32 job,uint32 batch,bytes32 root,uint32 stages,bytes32 earningsHash,bytes32 recordsHash)"
    );
    /// @notice EIP-712 type of a voucher.
    bytes32 public constant VOUCHER_TYPEHASH = keccak256("Voucher(bytes32 job,address provider,uint128 cumulative)");

    /// @notice The token of all deposits.
    IERC20 public immutable token;
    /// @notice Where payout addresses and revocations are looked up.
    ProviderRegistry public immutable registry;

    mapping(bytes32 job => Job) private _jobs;
    mapping(bytes32 job => Former) private _formers;
    mapping(bytes32 job => mapping(address provider => Account)) private _accounts;

    /// @notice A job was opened.
    event Opened(bytes32 indexed job, address indexed client, uint256 deposit);
    /// @notice More was deposited.
    event ToppedUp(bytes32 indexed job, uint256 amount);
    /// @notice A key may sign for the client until the job has cost so much.
    event SpenderSet(bytes32 indexed job, address indexed spender, uint256 cap);
    /// @notice A batch was settled. The packed records rebuild the root.
    event Settled(bytes32 indexed job, uint32 indexed batch, bytes32 root, uint32 stages, uint256 paid, bytes records);
    /// @notice A voucher was shown.
    event Redeemed(bytes32 indexed job, address indexed provider, uint256 amount);
    /// @notice A provider was paid.
    event Drawn(bytes32 indexed job, address indexed provider, address to, uint256 amount);
    /// @notice The client asked for the rest.
    event RefundAsked(bytes32 indexed job, uint64 refundAt);
    /// @notice The client got the rest.
    event Refunded(bytes32 indexed job, uint256 amount);

    /// @notice A zero address, id or amount where one is needed.
    error Zero();
    /// @notice The id is in use.
    error JobExists(bytes32 job);
    /// @notice There is no such job, or the caller is not its client.
    error NotYourJob(bytes32 job);
    /// @notice Neither the client nor its spender signed this.
    error BadSignature(address signer);
    /// @notice The job would cost more than was deposited, or than its spender may sign for.
    error OverBudget(uint256 needed, uint256 available);
    /// @notice Another batch is next.
    error WrongBatch(uint32 batch, uint32 next);
    /// @notice More was signed for already.
    error Stale(address provider, uint128 cumulative, uint128 earned);
    /// @notice The node's key was revoked.
    error NodeRevoked(address provider);
    /// @notice The records' length does not fit their number.
    error BadRecords(uint256 length, uint32 stages);
    /// @notice Not before this time; 0: it has not been asked for.
    error TooEarly(uint64 time);
    /// @notice The job's rest is being taken out.
    error Closing(bytes32 job);
    /// @notice The registry has another token, or expects its escrow at another address.
    error Miswired();

    /// @param token_ The token of all deposits; it moves exactly what it is told to.
    /// @param registry_ Where payout addresses are looked up.
    /// @param owner_ Who may pause new jobs, and nothing else.
    constructor(IERC20 token_, ProviderRegistry registry_, address owner_) EIP712("Conun", "1") Ownable(owner_) {
        if (address(token_) == address(0) || address(registry_) == address(0)) revert Zero();
        if (address(registry_.token()) != address(token_) || registry_.escrow() != address(this)) revert Miswired();
        token = token_;
        registry = registry_;
    }

    /// @notice Opens a job with a deposit of tokens that the caller has approved.
    /// @param job Its id, unused so far.
    /// @param deposit The tokens, which bound what the job may cost.
    /// @param spender A key that may sign for the caller, or zero.
    /// @param cap What the job may have cost in all for the spender's signature to count.
    function open(bytes32 job, uint128 deposit, address spender, uint128 cap) external {
        _open(job, deposit, spender, cap);
    }

    /// @notice As {open}, with the approval signed (ERC-2612). A permit that somebody has used before us, or a token without
    /// permits, does no harm: the allowance is what counts.
    function openWithPermit(
        bytes32 job,
        uint128 deposit,
        address spender,
        uint128 cap,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external {
        try IERC20Permit(address(token)).permit(msg.sender, address(this), deposit, deadline, v, r, s) {} catch {}
        _open(job, deposit, spender, cap);
    }

    function _open(bytes32 job, uint128 deposit, address spender, uint128 cap) private whenNotPaused {
        if (job == 0 || deposit == 0) revert Zero();
        Job storage account = _jobs[job];
        if (account.client != address(0)) revert JobExists(job);
        account.client = msg.sender;
        account.deposit = deposit;
        emit Opened(job, msg.sender, deposit);
        if (spender != address(0)) _setSpender(job, spender, cap);
        token.safeTransferFrom(msg.sender, address(this), deposit);
    }

    /// @notice Adds to a job's deposit. Anybody may.
    function topUp(bytes32 job, uint128 amount) external whenNotPaused {
        Job storage account = _jobs[job];
        if (account.client == address(0)) revert NotYourJob(job);
        if (account.refundAt != 0) revert Closing(job);
        if (amount == 0) revert Zero();
        account.deposit += amount;
        emit ToppedUp(job, amount);
        token.safeTransferFrom(msg.sender, address(this), amount);
    }

    /// @notice Names another spender, or none, or another cap. What the old one has signed for can be shown for
    /// {CHALLENGE_WINDOW} yet, up to the old cap, so that a client cannot void vouchers that providers work for. For so long
    /// nothing else can be taken away.
    function setSpender(bytes32 job, address spender, uint128 cap) external {
        Job storage account = _ours(job);
        bool lessens = spender != account.spender || cap < account.spenderCap;
        if (lessens && account.spender != address(0)) _retire(job, account);
        _setSpender(job, spender, cap);
    }

    function _retire(bytes32 job, Job storage account) private {
        if (block.timestamp < account.formerUntil) revert TooEarly(account.formerUntil);
        account.formerUntil = uint64(block.timestamp) + CHALLENGE_WINDOW;
        _formers[job] = Former(account.spender, account.spenderCap);
    }

    function _setSpender(bytes32 job, address spender, uint128 cap) private {
        _jobs[job].spender = spender;
        _jobs[job].spenderCap = cap;
        emit SpenderSet(job, spender, cap);
    }

    /// @notice Settles a batch. Anybody may show it; the client or its spender must have signed it. An earning of which more
    /// was signed for already, by a voucher, adds nothing: else whoever shows a voucher first would void the batch.
    /// @param earnings Who has earned how much of the job, in all.
    /// @param records The stage records, {RECORD_BYTES} each, or nothing.
    function settle(Batch calldata batch, Earning[] calldata earnings, bytes calldata records, bytes calldata signature)
        external
    {
        Job storage account = _jobs[batch.job];
        if (records.length != 0 && records.length != batch.stages * RECORD_BYTES) {
            revert BadRecords(records.length, batch.stages);
        }
        if (batch.batch != account.batches) revert WrongBatch(batch.batch, account.batches);
        bytes32 digest = _settlementDigest(batch, earnings, records);
        uint256 limit = _limit(batch.job, account, digest, signature);
        account.batches += 1;
        uint256 paid = _credit(batch.job, earnings);
        _charge(account, paid, limit);
        emit Settled(batch.job, batch.batch, batch.root, batch.stages, paid, records);
    }

    function _settlementDigest(Batch calldata batch, Earning[] calldata earnings, bytes calldata records)
        private
        view
        returns (bytes32)
    {
        bytes32 earningsHash = keccak256(abi.encode(earnings));
        bytes32 recordsHash = keccak256(records);
        return _hashTypedDataV4(
            keccak256(
                abi.encode(
                    SETTLEMENT_TYPEHASH, batch.job, batch.batch, batch.root, batch.stages, earningsHash, recordsHash
                )
            )
        );
    }

    /// @dev Credits what is new in each earning, and returns its sum.
    function _credit(bytes32 job, Earning[] calldata earnings) private returns (uint256 paid) {
        mapping(address provider => Account) storage accounts = _accounts[job];
        for (uint256 i = 0; i < earnings.length; i++) {
            Earning calldata earning = earnings[i];
            Account storage account = accounts[earning.provider];
            uint128 earned = account.earned;
            if (earning.cumulative <= earned) continue;
            account.earned = earning.cumulative;
            paid += earning.cumulative - earned;
        }
    }

    /// @notice Shows a voucher, where the client does not settle.
    /// @param cumulative All that `provider` has earned of the job.
    function redeem(bytes32 job, address provider, uint128 cumulative, bytes calldata signature) external {
        Job storage account = _jobs[job];
        bytes32 digest = _hashTypedDataV4(keccak256(abi.encode(VOUCHER_TYPEHASH, job, provider, cumulative)));
        uint256 limit = _limit(job, account, digest, signature);
        uint128 earned = _accounts[job][provider].earned;
        if (cumulative <= earned) revert Stale(provider, cumulative, earned);
        if (!registry.mayEarn(provider)) revert NodeRevoked(provider);
        _accounts[job][provider].earned = cumulative;
        _charge(account, cumulative - earned, limit);
        emit Redeemed(job, provider, cumulative - earned);
    }

    /// @dev What the job may have cost in all by the word of who signed.
    function _limit(bytes32 job, Job storage account, bytes32 digest, bytes calldata signature)
        private
        view
        returns (uint256)
    {
        address signer = ECDSA.recover(digest, signature);
        if (signer == account.client) return account.deposit;
        uint256 cap = _capOf(job, account, signer);
        if (cap == 0) revert BadSignature(signer);
        return cap < account.deposit ? cap : account.deposit;
    }

    /// @dev What a spender, or one lately replaced, may sign for; 0 for everybody else.
    function _capOf(bytes32 job, Job storage account, address signer) private view returns (uint256 cap) {
        if (signer == account.spender) cap = account.spenderCap;
        if (block.timestamp < account.formerUntil) {
            Former storage former = _formers[job];
            if (signer == former.spender && former.cap > cap) cap = former.cap;
        }
    }

    function _charge(Job storage account, uint256 paid, uint256 limit) private {
        uint256 earned = account.earned + paid;
        if (earned > limit) revert OverBudget(earned, limit);
        // At most the deposit, which is a uint128.
        // forge-lint: disable-next-line(unsafe-typecast)
        account.earned = uint128(earned);
    }

    /// @notice Pays a provider what it has earned of a job and not drawn yet, to its payout address. Anybody may call.
    function draw(bytes32 job, address provider) external {
        Account storage account = _accounts[job][provider];
        uint256 amount = account.earned - account.drawn;
        if (amount == 0) revert Zero();
        account.drawn = account.earned;
        address to = registry.notePaid(provider, amount);
        emit Drawn(job, provider, to, amount);
        token.safeTransfer(to, amount);
    }

    /// @notice The client asks for what nobody has earned. It can be had after {CHALLENGE_WINDOW}.
    function askRefund(bytes32 job) external {
        Job storage account = _ours(job);
        if (account.refundAt != 0) revert Closing(job);
        account.refundAt = uint64(block.timestamp) + CHALLENGE_WINDOW;
        emit RefundAsked(job, account.refundAt);
    }

    /// @notice The client takes what nobody has earned. The job's deposit is then what was earned, so that nothing more can
    /// be signed for.
    function refund(bytes32 job) external {
        Job storage account = _ours(job);
        if (account.refundAt == 0 || block.timestamp < account.refundAt) revert TooEarly(account.refundAt);
        uint256 rest = account.deposit - account.earned;
        if (rest == 0) revert Zero();
        account.deposit = account.earned;
        emit Refunded(job, rest);
        token.safeTransfer(msg.sender, rest);
    }

    function _ours(bytes32 job) private view returns (Job storage account) {
        account = _jobs[job];
        if (account.client != msg.sender) revert NotYourJob(job);
    }

    /// @notice Stops new jobs and deposits. Settlements, vouchers, payments and refunds go on.
    function pause() external onlyOwner {
        _pause();
    }

    /// @notice Lets new jobs in again.
    function unpause() external onlyOwner {
        _unpause();
    }

    /// @notice A job's account.
    function jobOf(bytes32 job) external view returns (Job memory) {
        return _jobs[job];
    }

    /// @notice The spender that was replaced last; it may sign until the job's `formerUntil`.
    function formerOf(bytes32 job) external view returns (Former memory) {
        return _formers[job];
    }

    /// @notice What a provider has of a job.
    function accountOf(bytes32 job, address provider) external view returns (Account memory) {
        return _accounts[job][provider];
    }

    /// @notice The domain in which settlements, vouchers, orders, receipts and claims are signed.
    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }
}
