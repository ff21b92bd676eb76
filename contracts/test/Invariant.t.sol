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

    /// Computed once: a key's address costs far more than a call.
    address[PROVIDERS] private _providers;

    uint256 public deposited;
    uint256 public refunded;
    uint256 public drawn;
    uint256 public staked;
    uint256 public unstaked;
    uint256 public slashed;
    uint256 public burned;
    /// What must never happen.
    uint256 public breaches;

    constructor() {
        setUp();
        for (uint256 i = 0; i < PROVIDERS; i++) {
            _providers[i] = vm.addr(key(i));
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

    function settle(uint256 which, uint256 who, uint128 more, bool bySpender) external {
        JobEscrow.Job memory account = escrow.jobOf(job(which));
        uint128 cumulative = escrow.accountOf(job(which), provider(who)).earned + more % 50 ether;
        JobEscrow.Batch memory batch = JobEscrow.Batch(job(which), account.batches, "root", 1);
        JobEscrow.Earning[] memory earnings = one(provider(who), cumulative);
        bytes memory signature = signed(bySpender ? SPENDER_KEY : CLIENT_KEY, settlement(batch, earnings, ""));
        try escrow.settle(batch, earnings, "", signature) {
            try escrow.settle(batch, earnings, "", signature) {
                breaches++;
            } catch {}
        } catch {}
    }

    function redeem(uint256 which, uint256 who, uint128 more) external {
        bytes32 id = job(which);
        uint128 cumulative = escrow.accountOf(id, provider(who)).earned + more % 50 ether;
        bytes32 hash = keccak256(abi.encode(escrow.VOUCHER_TYPEHASH(), id, provider(who), cumulative));
        bytes memory signature = signed(CLIENT_KEY, typed(address(escrow), hash));
        try escrow.redeem(id, provider(who), cumulative, signature) {
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
        try escrow.refund(job(which)) {
            breaches++;
        } catch {}
    }

    function draw(uint256 which, uint256 who) external {
        uint256 before = token.balanceOf(payout);
        try escrow.draw(job(which), provider(who)) {
            drawn += token.balanceOf(payout) - before;
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
        amount = amount % 10 ether + 1;
        vm.prank(operator);
        try registry.stake(amount) {
            staked += amount;
        } catch {}
    }

    function unstake(uint128 amount) external {
        vm.prank(operator);
        try registry.unstake(amount % 10 ether + 1) {} catch {}
    }

    function withdraw() external {
        uint256 before = token.balanceOf(operator);
        vm.prank(operator);
        try registry.withdraw() {
            unstaked += token.balanceOf(operator) - before;
        } catch {}
    }

    function equivocate(uint256 who, bytes32 order) external {
        Disputes.TaskReceipt memory a = Disputes.TaskReceipt(order, provider(who), "p", "i", "a", 1, 2, 3);
        Disputes.TaskReceipt memory b = Disputes.TaskReceipt(order, provider(who), "p", "i", "b", 1, 2, 3);
        Disputes.SignedReceipt memory first = by(who, a);
        Disputes.SignedReceipt memory second = by(who, b);
        (uint256 held, uint256 supply) = (token.balanceOf(address(registry)), token.totalSupply());
        try disputes.proveEquivocation(first, second) {
            slashed += held - token.balanceOf(address(registry));
            burned += supply - token.totalSupply();
            try disputes.proveEquivocation(second, first) {
                breaches++;
            } catch {}
        } catch {}
    }

    function by(uint256 who, Disputes.TaskReceipt memory what) private view returns (Disputes.SignedReceipt memory) {
        return Disputes.SignedReceipt(what, signed(key(who), typed(address(escrow), disputes.receiptHash(what))));
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

    function holdings() external view returns (uint256 inEscrow, uint256 inRegistry, uint256 supply) {
        return (token.balanceOf(address(escrow)), token.balanceOf(address(registry)), token.totalSupply());
    }

    function stakes() external view returns (uint256) {
        return uint256(registry.operatorOf(operator).stake) + registry.operatorOf(operator).unbonding;
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

    function excludeSelectors() public view returns (FuzzSelector[] memory excluded) {
        excluded = new FuzzSelector[](1);
        excluded[0].addr = address(actors);
        excluded[0].selectors = new bytes4[](1);
        excluded[0].selectors[0] = actors.setUp.selector;
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

    function invariant_tokens_that_went_in_are_there_or_went_out() public view {
        (uint256 held,,) = actors.holdings();
        require(held + actors.drawn() + actors.refunded() == actors.deposited(), "conservation");
    }

    function invariant_drawn_is_what_accounts_say() public view {
        (,, uint256 accounts, uint256 undrawn) = actors.sums();
        require(actors.drawn() == accounts - undrawn, "drawn");
    }

    function invariant_stake_is_there_or_went_out_or_was_slashed() public view {
        (, uint256 held,) = actors.holdings();
        require(held == actors.stakes(), "stakes");
        require(held + actors.unstaked() + actors.slashed() == actors.staked(), "stake conservation");
    }

    function invariant_the_supply_only_shrinks_by_what_was_burned() public view {
        (,, uint256 supply) = actors.holdings();
        require(supply + actors.burned() == 1_000_000 ether, "supply");
    }

    function invariant_nothing_was_paid_twice_or_stolen() public view {
        require(actors.breaches() == 0, "breach");
    }
}
