// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Base} from "./Base.sol";
import {Disputes} from "../src/Disputes.sol";
import {JobEscrow} from "../src/JobEscrow.sol";

/// Does what clients, providers and cheats do, in any order, and keeps books of its own. Nothing in here may revert: what
/// must be refused is tried and counted.
contract Actors is Base {
    uint256 private constant JOBS = 3;
    uint256 private constant PROVIDERS = 4;
    uint256 private constant SECOND_KEY = 0x5EC0;

    /// Computed once: a key's address costs far more than a call. The last one has no operator.
    address[PROVIDERS] private _providers;
    address private _second;
    /// The largest amount that was signed and accepted.
    mapping(bytes32 job => mapping(address provider => uint256)) public accepted;

    uint256 public deposited;
    uint256 public refunded;
    uint256 public drawn;
    uint256 public staked;
    uint256 public unstaked;
    uint256 public slashed;
    uint256 public burned;
    uint256 public convictions;
    /// What must never happen.
    uint256 public breaches;

    constructor() {
        setUp();
        _second = vm.addr(SECOND_KEY);
        for (uint256 i = 0; i < PROVIDERS; i++) {
            _providers[i] = vm.addr(key(i));
            if (i == PROVIDERS - 1) break;
            vm.startPrank(operator);
            registry.delegate(provider(i), signed(key(i), consent(operator)));
            vm.stopPrank();
        }
        staked = 500 ether;
    }

    function key(uint256 i) private pure returns (uint256) {
        return 0x900D + i % PROVIDERS;
    }

    function provider(uint256 i) public view returns (address) {
        return _providers[i % PROVIDERS];
    }

    function job(uint256 i) public pure returns (bytes32) {
        return bytes32(1 + i % JOBS);
    }

    /// The client's key mostly, its spenders' else.
    function signerOf(uint256 who) private pure returns (uint256) {
        return who % 4 == 0 ? SPENDER_KEY : who % 4 == 1 ? SECOND_KEY : CLIENT_KEY;
    }

    function open(uint256 which, uint128 deposit) external {
        deposit = deposit % 1_000 ether + 1;
        vm.prank(client);
        try escrow.open(job(which), deposit, spender, deposit / 2) {
            deposited += deposit;
        } catch {}
    }

    function topUp(uint256 which, uint128 amount) external {
        amount = amount % 100 ether + 1;
        vm.prank(client);
        try escrow.topUp(job(which), amount) {
            deposited += amount;
        } catch {}
    }

    function setSpender(uint256 which, bool second, uint128 cap) external {
        vm.prank(client);
        try escrow.setSpender(job(which), second ? _second : spender, cap % 1_000 ether) {} catch {}
    }

    /// What a key may make a job cost, by rules written anew here.
    function bound(bytes32 id, uint256 signer) private view returns (uint256) {
        JobEscrow.Job memory account = escrow.jobOf(id);
        if (signer == CLIENT_KEY) return account.deposit;
        address who = signer == SPENDER_KEY ? spender : _second;
        JobEscrow.Former memory former = escrow.formerOf(id);
        uint256 cap = who == account.spender ? account.spenderCap : 0;
        bool stays = who == former.spender && block.timestamp < account.formerUntil;
        if (stays && former.cap > cap) cap = former.cap;
        return cap < account.deposit ? cap : account.deposit;
    }

    function noteAccepted(bytes32 id, address who, uint128 cumulative, uint256 limit) private {
        if (cumulative > accepted[id][who]) accepted[id][who] = cumulative;
        if (escrow.jobOf(id).earned > limit) breaches++;
    }

    function settle(uint256 which, uint256 who, uint256 signer, int128 more) external {
        bytes32 id = job(which);
        signer = signerOf(signer);
        // At times less than what was earned before.
        int256 next = int256(uint256(escrow.accountOf(id, provider(who)).earned)) + more % 50 ether;
        uint128 cumulative = next < 0 ? 0 : uint128(uint256(next));
        JobEscrow.Batch memory batch = JobEscrow.Batch(id, escrow.jobOf(id).batches, "root", 1);
        JobEscrow.Earning[] memory earnings = one(provider(who), cumulative);
        bytes memory signature = signed(signer, settlement(batch, earnings, ""));
        uint256 limit = bound(id, signer);
        try escrow.settle(batch, earnings, "", signature) {
            noteAccepted(id, provider(who), cumulative, limit);
            try escrow.settle(batch, earnings, "", signature) {
                breaches++;
            } catch {}
        } catch {
            // Whoever showed a voucher before must not void it.
            if (uint256(escrow.jobOf(id).earned) + 50 ether <= limit) breaches++;
        }
    }

    function redeem(uint256 which, uint256 who, uint256 signer, uint128 more) external {
        bytes32 id = job(which);
        signer = signerOf(signer);
        uint128 cumulative = escrow.accountOf(id, provider(who)).earned + more % 50 ether;
        bytes32 hash = keccak256(abi.encode(escrow.VOUCHER_TYPEHASH(), id, provider(who), cumulative));
        bytes memory signature = signed(signer, typed(address(escrow), hash));
        uint256 limit = bound(id, signer);
        try escrow.redeem(id, provider(who), cumulative, signature) {
            noteAccepted(id, provider(who), cumulative, limit);
            try escrow.redeem(id, provider(who), cumulative, signature) {
                breaches++;
            } catch {}
        } catch {}
    }

    function steal(uint256 which, uint256 who, uint128 amount) external {
        bytes32 hash = keccak256(abi.encode(escrow.VOUCHER_TYPEHASH(), job(which), provider(who), amount));
        bytes memory signature = signed(key(who), typed(address(escrow), hash));
        try escrow.redeem(job(which), provider(who), amount, signature) {
            breaches++;
        } catch {}
        try registry.slash(provider(who), amount, address(this)) {
            breaches++;
        } catch {}
        try registry.notePaid(provider(who), amount) {
            breaches++;
        } catch {}
        try escrow.refund(job(which)) {
            breaches++;
        } catch {}
        try escrow.setSpender(job(which), address(this), amount) {
            breaches++;
        } catch {}
    }

    function draw(uint256 which, uint256 who) external {
        address to = who % PROVIDERS == PROVIDERS - 1 ? provider(who) : payout;
        uint256 before = token.balanceOf(to);
        try escrow.draw(job(which), provider(who)) {
            drawn += token.balanceOf(to) - before;
            try escrow.draw(job(which), provider(who)) {
                breaches++;
            } catch {}
        } catch {}
    }

    function askRefund(uint256 which) external {
        vm.prank(client);
        try escrow.askRefund(job(which)) {} catch {}
    }

    function refund(uint256 which) external {
        uint256 before = token.balanceOf(client);
        vm.prank(client);
        try escrow.refund(job(which)) {
            refunded += token.balanceOf(client) - before;
        } catch {}
    }

    function pause(bool on) external {
        vm.prank(admin);
        if (on) {
            try escrow.pause() {} catch {}
        } else {
            try escrow.unpause() {} catch {}
        }
    }

    function stake(uint128 amount) external {
        amount = amount % 100 ether + 1;
        vm.prank(operator);
        try registry.stake(amount) {
            staked += amount;
        } catch {}
    }

    function unstake(uint128 amount) external {
        vm.prank(operator);
        try registry.unstake(amount % 100 ether + 1) {} catch {}
    }

    function withdraw() external {
        uint256 before = token.balanceOf(operator);
        vm.prank(operator);
        try registry.withdraw() {
            unstaked += token.balanceOf(operator) - before;
        } catch {}
    }

    function equivocate(uint256 who, uint64 order, uint64 units, bool honest) external {
        Disputes.TaskReceipt memory a = receiptOf(provider(who), bytes32(uint256(order)), units);
        Disputes.TaskReceipt memory b = receiptOf(provider(who), bytes32(uint256(order)), units);
        if (!honest) b.outputsRoot = "other";
        judge(abi.encodeCall(Disputes.proveEquivocation, (by(key(who), a), by(key(who), b))), honest);
    }

    function claimBadly(uint256 who, uint64 order, uint32 units, bool honest) external {
        Disputes.Leaf[] memory leaves = pair(order, units);
        Disputes.SignedClaim memory claim = by(key(who), claimOf(provider(who), 1, leaves));
        Disputes.TaskReceipt memory receipt =
            receiptOf(provider(who), bytes32(uint256(order)), honest ? units : uint64(units) + 1);
        judge(abi.encodeCall(Disputes.proveBadLeaf, (claim, proofOf(leaves, 1), by(key(who), receipt))), honest);
    }

    function claimTwice(uint256 who, uint64 order, uint32 units, bool honest) external {
        Disputes.Leaf[] memory leaves = pair(order, units);
        Disputes.SignedClaim memory claim = by(key(who), claimOf(provider(who), 1, leaves));
        // An honest node's second claim has other orders.
        if (honest) leaves[1].orderHash = "other";
        Disputes.SignedClaim memory second = by(key(who), claimOf(provider(who), 2, leaves));
        Disputes.Inclusion memory where = proofOf(leaves, 1);
        bytes memory call =
            abi.encodeCall(Disputes.proveDuplicateClaim, (bytes32(uint256(order)), claim, where, second, where));
        judge(call, honest);
    }

    function pair(uint64 order, uint32 units) private pure returns (Disputes.Leaf[] memory leaves) {
        leaves = new Disputes.Leaf[](2);
        (leaves[0], leaves[1]) = (Disputes.Leaf("first", 1), Disputes.Leaf(bytes32(uint256(order)), units));
    }

    /// Shows a proof, and shows it again.
    function judge(bytes memory proof, bool honest) private {
        (uint256 held, uint256 supply) = (token.balanceOf(address(registry)), token.totalSupply());
        (bool ok,) = address(disputes).call(proof);
        if (!ok) return;
        convictions++;
        slashed += held - token.balanceOf(address(registry));
        burned += supply - token.totalSupply();
        (bool again,) = address(disputes).call(proof);
        if (honest || again || slashed > convictions * disputes.penalty()) breaches++;
    }

    function wait_(uint32 time) external {
        vm.warp(block.timestamp + time % 8 days);
    }

    function sums() external view returns (uint256 deposits, uint256 earned, uint256 accounts, uint256 undrawn) {
        for (uint256 i = 0; i < JOBS; i++) {
            JobEscrow.Job memory account = escrow.jobOf(job(i));
            deposits += account.deposit;
            earned += account.earned;
            for (uint256 p = 0; p < PROVIDERS; p++) {
                JobEscrow.Account memory a = escrow.accountOf(job(i), provider(p));
                accounts += a.earned;
                undrawn += a.earned - a.drawn;
            }
        }
    }

    function withinBudget() external view returns (bool within) {
        within = true;
        for (uint256 i = 0; i < JOBS; i++) {
            JobEscrow.Job memory account = escrow.jobOf(job(i));
            within = within && account.earned <= account.deposit;
            for (uint256 p = 0; p < PROVIDERS; p++) {
                JobEscrow.Account memory a = escrow.accountOf(job(i), provider(p));
                within = within && a.drawn <= a.earned;
            }
        }
    }

    function asSigned() external view returns (bool same) {
        same = true;
        for (uint256 i = 0; i < JOBS; i++) {
            for (uint256 p = 0; p < PROVIDERS; p++) {
                same = same && escrow.accountOf(job(i), provider(p)).earned == accepted[job(i)][provider(p)];
            }
        }
    }

    function holdings() external view returns (uint256 inEscrow, uint256 inRegistry, uint256 supply) {
        return (token.balanceOf(address(escrow)), token.balanceOf(address(registry)), token.totalSupply());
    }

    function stakes() external view returns (uint256) {
        return uint256(registry.operatorOf(operator).stake) + registry.operatorOf(operator).unbonding;
    }

    function fame() external view returns (uint256 paid, uint256 convicted) {
        paid = registry.operatorOf(operator).paid + registry.operatorOf(provider(PROVIDERS - 1)).paid;
        return (paid, registry.operatorOf(operator).convictions);
    }
}

contract InvariantTest {
    Actors private actors;

    function setUp() public {
        actors = new Actors();
    }

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    /// Only what acts: views would use up calls, and the set-up would start anew.
    function targetSelectors() public view returns (FuzzSelector[] memory targets) {
        targets = new FuzzSelector[](1);
        targets[0].addr = address(actors);
        targets[0].selectors = acts();
    }

    function acts() private view returns (bytes4[] memory list) {
        list = new bytes4[](17);
        (list[0], list[1], list[2]) = (actors.open.selector, actors.topUp.selector, actors.setSpender.selector);
        (list[3], list[4], list[5]) = (actors.settle.selector, actors.redeem.selector, actors.steal.selector);
        (list[6], list[7], list[8]) = (actors.draw.selector, actors.askRefund.selector, actors.refund.selector);
        (list[9], list[10], list[11]) = (actors.pause.selector, actors.stake.selector, actors.unstake.selector);
        (list[12], list[13], list[14]) =
        (actors.withdraw.selector, actors.equivocate.selector, actors.claimBadly.selector);
        (list[15], list[16]) = (actors.claimTwice.selector, actors.wait_.selector);
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(actors);
    }

    function invariant_the_escrow_holds_what_it_owes() public view {
        (uint256 deposits, uint256 earned,, uint256 undrawn) = actors.sums();
        (uint256 held,,) = actors.holdings();
        require(held == deposits - earned + undrawn, "solvency");
    }

    function invariant_a_jobs_cost_is_the_sum_of_its_providers() public view {
        (, uint256 earned, uint256 accounts,) = actors.sums();
        require(earned == accounts, "sums");
    }

    function invariant_no_job_costs_more_than_its_deposit_and_nobody_draws_more_than_they_earned() public view {
        require(actors.withinBudget(), "budget");
    }

    function invariant_nobody_earns_but_the_largest_amount_signed_and_none_less() public view {
        require(actors.asSigned(), "signed");
    }

    function invariant_tokens_that_went_in_are_there_or_went_out() public view {
        (uint256 held,,) = actors.holdings();
        require(held + actors.drawn() + actors.refunded() == actors.deposited(), "conservation");
    }

    function invariant_drawn_is_what_accounts_and_fame_say() public view {
        (,, uint256 accounts, uint256 undrawn) = actors.sums();
        (uint256 paid,) = actors.fame();
        require(actors.drawn() == accounts - undrawn, "accounts");
        require(actors.drawn() == paid, "fame");
    }

    function invariant_stake_is_there_or_went_out_or_was_slashed() public view {
        (, uint256 held,) = actors.holdings();
        require(held == actors.stakes(), "stakes");
        require(held + actors.unstaked() + actors.slashed() == actors.staked(), "stake conservation");
    }

    function invariant_only_proofs_convict() public view {
        (, uint256 convicted) = actors.fame();
        require(convicted == actors.convictions(), "convictions");
    }

    function invariant_the_supply_only_shrinks_by_what_was_burned() public view {
        (,, uint256 supply) = actors.holdings();
        require(supply + actors.burned() == 1_000_000 ether, "supply");
    }

    function invariant_nothing_was_paid_twice_or_stolen() public view {
        require(actors.breaches() == 0, "breach");
    }
}
