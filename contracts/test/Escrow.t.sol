// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {Base} from "./Base.sol";
import {ConunToken} from "../src/ConunToken.sol";
import {Disputes} from "../src/Disputes.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {JobEscrow} from "../src/JobEscrow.sol";
import {ProviderRegistry} from "../src/ProviderRegistry.sol";

/// A token that can be burned, and knows no permits.
contract PlainToken is ERC20Burnable {
    constructor() ERC20("Plain", "PLAIN") {
        _mint(msg.sender, 100 ether);
    }
}

contract EscrowTest is Base {
    function test_a_job_is_paid_from_its_deposit_and_the_rest_comes_back() public {
        openJob();
        settleOne(CLIENT_KEY, 0, 10 ether);
        settleOne(SPENDER_KEY, 1, 25 ether);
        escrow.draw(JOB, node);
        equal(token.balanceOf(payout), 25 ether, "the payout address has it all, once");
        vm.prank(client);
        escrow.askRefund(JOB);
        vm.warp(block.timestamp + escrow.CHALLENGE_WINDOW());
        uint256 before = token.balanceOf(client);
        vm.prank(client);
        escrow.refund(JOB);
        equal(token.balanceOf(client) - before, DEPOSIT - 25 ether, "the rest");
        equal(token.balanceOf(address(escrow)), 0, "nothing is left behind");
        equal(escrow.jobOf(JOB).batches, 2, "batches");
    }

    function test_the_domain_is_the_one_that_nodes_sign_in() public view {
        require(escrow.domainSeparator() == domain(address(escrow)), "domain");
    }

    function test_nothing_is_paid_twice() public {
        openJob();
        settleOne(CLIENT_KEY, 0, 10 ether);
        JobEscrow.Batch memory batch = batchOf(0, 1);
        bytes memory signature = signed(CLIENT_KEY, settlement(batch, one(node, 10 ether), ""));
        vm.expectRevert(abi.encodeWithSelector(JobEscrow.WrongBatch.selector, 0, 1));
        escrow.settle(batch, one(node, 10 ether), "", signature);
        signature = signed(CLIENT_KEY, voucher(node, 10 ether));
        vm.expectRevert(abi.encodeWithSelector(JobEscrow.Stale.selector, node, 10 ether, 10 ether));
        escrow.redeem(JOB, node, 10 ether, signature);
        settleOne(CLIENT_KEY, 1, 9 ether);
        equal(escrow.accountOf(JOB, node).earned, 10 ether, "an older amount adds nothing");
        escrow.draw(JOB, node);
        vm.expectRevert(JobEscrow.Zero.selector);
        escrow.draw(JOB, node);
    }

    function test_vouchers_serve_where_the_client_disappears() public {
        openJob();
        vm.prank(client);
        escrow.askRefund(JOB);
        escrow.redeem(JOB, node, 5 ether, signed(SPENDER_KEY, voucher(node, 5 ether)));
        escrow.redeem(JOB, node, 7 ether, signed(CLIENT_KEY, voucher(node, 7 ether)));
        equal(escrow.accountOf(JOB, node).earned, 7 ether, "vouchers are cumulative");
        vm.warp(block.timestamp + escrow.CHALLENGE_WINDOW());
        vm.startPrank(client);
        escrow.refund(JOB);
        vm.expectRevert(JobEscrow.Zero.selector);
        escrow.refund(JOB);
        vm.stopPrank();
        bytes memory late = signed(CLIENT_KEY, voucher(node, 8 ether));
        vm.expectRevert(abi.encodeWithSelector(JobEscrow.OverBudget.selector, 8 ether, 7 ether));
        escrow.redeem(JOB, node, 8 ether, late);
        escrow.draw(JOB, node);
        equal(token.balanceOf(payout), 7 ether, "what was earned stays");
    }

    function test_signatures_of_others_and_for_others_are_void() public {
        openJob();
        bytes memory signature = signed(NODE_KEY, voucher(node, 1 ether));
        vm.expectRevert(abi.encodeWithSelector(JobEscrow.BadSignature.selector, node));
        escrow.redeem(JOB, node, 1 ether, signature);
        vm.expectRevert(abi.encodeWithSelector(ECDSA.ECDSAInvalidSignatureLength.selector, 1));
        escrow.redeem(JOB, node, 1 ether, hex"00");
        signature = signed(CLIENT_KEY, voucher(node, 1 ether));
        uint256 chain = block.chainid;
        vm.chainId(99);
        try escrow.redeem(JOB, node, 1 ether, signature) {
            revert("a signature for another chain counts");
        } catch {}
        vm.chainId(chain);
        escrow.redeem(JOB, node, 1 ether, signature);
    }

    function test_nobody_spends_beyond_the_deposit_or_the_cap() public {
        openJob();
        JobEscrow.Batch memory batch = batchOf(0, 1);
        JobEscrow.Earning[] memory much = one(node, DEPOSIT / 2 + 1);
        bytes memory signature = signed(SPENDER_KEY, settlement(batch, much, ""));
        vm.expectRevert(abi.encodeWithSelector(JobEscrow.OverBudget.selector, DEPOSIT / 2 + 1, DEPOSIT / 2));
        escrow.settle(batch, much, "", signature);
        much = one(node, type(uint128).max);
        signature = signed(CLIENT_KEY, settlement(batch, much, ""));
        vm.expectRevert(abi.encodeWithSelector(JobEscrow.OverBudget.selector, type(uint128).max, DEPOSIT));
        escrow.settle(batch, much, "", signature);
        vm.prank(client);
        escrow.setSpender(JOB, spender, DEPOSIT * 2);
        signature = signed(SPENDER_KEY, settlement(batch, much, ""));
        vm.expectRevert(abi.encodeWithSelector(JobEscrow.OverBudget.selector, type(uint128).max, DEPOSIT));
        escrow.settle(batch, much, "", signature);
    }

    function test_records_have_64_bytes_each_or_are_left_out() public {
        openJob();
        JobEscrow.Batch memory batch = batchOf(0, 2);
        bytes memory records = new bytes(127);
        bytes memory signature = signed(CLIENT_KEY, settlement(batch, one(node, 1), records));
        vm.expectRevert(abi.encodeWithSelector(JobEscrow.BadRecords.selector, 127, 2));
        escrow.settle(batch, one(node, 1), records, signature);
        records = new bytes(128);
        escrow.settle(batch, one(node, 1), records, signed(CLIENT_KEY, settlement(batch, one(node, 1), records)));
    }

    function test_ids_and_amounts_are_checked() public {
        openJob();
        vm.startPrank(client);
        vm.expectRevert(abi.encodeWithSelector(JobEscrow.JobExists.selector, JOB));
        escrow.open(JOB, 1, address(0), 0);
        vm.expectRevert(JobEscrow.Zero.selector);
        escrow.open(bytes32(0), 1, address(0), 0);
        vm.expectRevert(JobEscrow.Zero.selector);
        escrow.open("other", 0, address(0), 0);
        escrow.open("other", 1, address(0), 0);
        vm.expectRevert(JobEscrow.Zero.selector);
        escrow.topUp(JOB, 0);
        vm.expectRevert(abi.encodeWithSelector(JobEscrow.NotYourJob.selector, bytes32("none")));
        escrow.topUp("none", 1);
        escrow.topUp(JOB, 5 ether);
        equal(escrow.jobOf(JOB).deposit, DEPOSIT + 5 ether, "topped up");
        vm.expectRevert(abi.encodeWithSelector(JobEscrow.TooEarly.selector, 0));
        escrow.refund(JOB);
        escrow.askRefund(JOB);
        vm.expectRevert(abi.encodeWithSelector(JobEscrow.Closing.selector, JOB));
        escrow.askRefund(JOB);
        vm.expectRevert(abi.encodeWithSelector(JobEscrow.Closing.selector, JOB));
        escrow.topUp(JOB, 1);
        vm.expectRevert(
            abi.encodeWithSelector(JobEscrow.TooEarly.selector, uint64(block.timestamp) + escrow.CHALLENGE_WINDOW())
        );
        escrow.refund(JOB);
        vm.stopPrank();
        vm.expectRevert(abi.encodeWithSelector(JobEscrow.NotYourJob.selector, JOB));
        escrow.setSpender(JOB, address(this), DEPOSIT);
        vm.expectRevert(abi.encodeWithSelector(JobEscrow.NotYourJob.selector, JOB));
        escrow.askRefund(JOB);
        vm.expectRevert(abi.encodeWithSelector(JobEscrow.NotYourJob.selector, JOB));
        escrow.refund(JOB);
    }

    function test_a_revoked_node_redeems_nothing() public {
        openJob();
        vm.prank(operator);
        registry.revoke(node);
        bytes memory signature = signed(CLIENT_KEY, voucher(node, 1 ether));
        vm.expectRevert(abi.encodeWithSelector(JobEscrow.NodeRevoked.selector, node));
        escrow.redeem(JOB, node, 1 ether, signature);
    }

    function test_a_permit_opens_a_job_and_a_used_one_does_no_harm() public {
        (uint8 v, bytes32 r, bytes32 s) = permit(CLIENT_KEY, address(escrow), DEPOSIT);
        vm.prank(client);
        token.approve(address(escrow), 0);
        vm.prank(client);
        escrow.openWithPermit(JOB, DEPOSIT, address(0), 0, block.timestamp, v, r, s);
        equal(escrow.jobOf(JOB).deposit, DEPOSIT, "opened");
        // The same permit again: void, but here an allowance is left.
        vm.startPrank(client);
        token.approve(address(escrow), DEPOSIT);
        escrow.openWithPermit("second", DEPOSIT, address(0), 0, block.timestamp, v, r, s);
        try escrow.openWithPermit("third", DEPOSIT, address(0), 0, block.timestamp, v, r, s) {
            revert("opened without an allowance");
        } catch {}
        vm.stopPrank();
        equal(escrow.jobOf("third").deposit, 0, "nothing spent");
    }

    function test_a_pause_stops_new_jobs_and_nothing_else() public {
        openJob();
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, address(this)));
        escrow.pause();
        vm.prank(admin);
        escrow.pause();
        vm.startPrank(client);
        vm.expectRevert(Pausable.EnforcedPause.selector);
        escrow.open("other", 1, address(0), 0);
        vm.expectRevert(Pausable.EnforcedPause.selector);
        escrow.topUp(JOB, 1);
        escrow.askRefund(JOB);
        vm.stopPrank();
        settleOne(CLIENT_KEY, 0, 1 ether);
        escrow.redeem(JOB, node, 2 ether, signed(CLIENT_KEY, voucher(node, 2 ether)));
        escrow.draw(JOB, node);
        vm.warp(block.timestamp + escrow.CHALLENGE_WINDOW());
        vm.prank(client);
        escrow.refund(JOB);
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, address(this)));
        escrow.unpause();
        vm.prank(admin);
        escrow.unpause();
        vm.prank(client);
        escrow.open("other", 1, address(0), 0);
    }

    function test_it_is_not_deployed_without_its_parts_or_at_another_address() public {
        vm.expectRevert(JobEscrow.Zero.selector);
        new JobEscrow(IERC20(address(0)), registry, admin);
        vm.expectRevert(JobEscrow.Zero.selector);
        new JobEscrow(token, ProviderRegistry(address(0)), admin);
        vm.expectRevert(JobEscrow.Miswired.selector);
        new JobEscrow(token, registry, admin);
        ConunToken other = new ConunToken(address(this), 1);
        registry = new ProviderRegistry(other, later(1), address(1));
        vm.expectRevert(JobEscrow.Miswired.selector);
        new JobEscrow(token, registry, admin);
        registry = new ProviderRegistry(other, later(1), address(1));
        escrow = new JobEscrow(other, registry, admin);
        vm.expectRevert(Disputes.Miswired.selector);
        new Disputes(escrow, 1);
    }

    function test_a_voucher_shown_first_does_not_void_a_settlement_for_others() public {
        openJob();
        address other = address(0x0782);
        escrow.redeem(JOB, node, 5 ether, signed(CLIENT_KEY, voucher(node, 5 ether)));
        JobEscrow.Earning[] memory earnings = new JobEscrow.Earning[](2);
        (earnings[0], earnings[1]) = (JobEscrow.Earning(node, 3 ether), JobEscrow.Earning(other, 4 ether));
        JobEscrow.Batch memory batch = batchOf(0, 1);
        escrow.settle(batch, earnings, "", signed(CLIENT_KEY, settlement(batch, earnings, "")));
        equal(escrow.accountOf(JOB, node).earned, 5 ether, "the larger amount stays");
        equal(escrow.accountOf(JOB, other).earned, 4 ether, "others get theirs");
        equal(escrow.jobOf(JOB).earned, 9 ether, "the sum");
    }

    function test_a_replaced_spenders_word_outlives_it_for_a_while() public {
        openJob();
        address second = vm.addr(0x5EC0);
        bytes memory signature = signed(SPENDER_KEY, voucher(node, 5 ether));
        bytes memory late = signed(SPENDER_KEY, voucher(node, 6 ether));
        vm.startPrank(client);
        escrow.setSpender(JOB, second, 1 ether);
        uint64 until = uint64(block.timestamp) + escrow.CHALLENGE_WINDOW();
        equal(escrow.jobOf(JOB).formerUntil, until, "until");
        require(escrow.formerOf(JOB).spender == spender && escrow.formerOf(JOB).cap == DEPOSIT / 2, "the former");
        vm.expectRevert(abi.encodeWithSelector(JobEscrow.TooEarly.selector, until));
        escrow.setSpender(JOB, address(0), 0);
        vm.expectRevert(abi.encodeWithSelector(JobEscrow.TooEarly.selector, until));
        escrow.setSpender(JOB, second, 1 ether - 1);
        escrow.setSpender(JOB, second, 2 ether);
        vm.stopPrank();
        escrow.redeem(JOB, node, 1 ether, signed(0x5EC0, voucher(node, 1 ether)));
        escrow.redeem(JOB, node, 5 ether, signature);
        vm.warp(until);
        vm.expectRevert(abi.encodeWithSelector(JobEscrow.BadSignature.selector, spender));
        escrow.redeem(JOB, node, 6 ether, late);
        vm.prank(client);
        escrow.setSpender(JOB, address(0), 0);
        equal(escrow.jobOf(JOB).formerUntil, until + escrow.CHALLENGE_WINDOW(), "another replaced");
    }

    function test_a_lowered_cap_counts_after_a_while_and_no_spender_leaves_none() public {
        openJob();
        vm.startPrank(client);
        escrow.setSpender(JOB, spender, 1 ether);
        vm.stopPrank();
        escrow.redeem(JOB, node, 2 ether, signed(SPENDER_KEY, voucher(node, 2 ether)));
        vm.warp(block.timestamp + escrow.CHALLENGE_WINDOW());
        bytes memory signature = signed(SPENDER_KEY, voucher(node, 3 ether));
        vm.expectRevert(abi.encodeWithSelector(JobEscrow.OverBudget.selector, 3 ether, 1 ether));
        escrow.redeem(JOB, node, 3 ether, signature);
        vm.startPrank(client);
        escrow.open("other", 1 ether, address(0), 0);
        escrow.setSpender("other", spender, 1 ether);
        equal(escrow.jobOf("other").formerUntil, 0, "nobody was replaced");
        vm.stopPrank();
    }

    function test_a_token_without_permits_serves_after_an_approval() public {
        PlainToken plain = new PlainToken();
        registry = new ProviderRegistry(plain, later(1), later(2));
        escrow = new JobEscrow(plain, registry, admin);
        disputes = new Disputes(escrow, 1 ether);
        vm.expectRevert(
            abi.encodeWithSelector(IERC20Errors.ERC20InsufficientAllowance.selector, address(escrow), 0, 5 ether)
        );
        escrow.openWithPermit(JOB, 5 ether, spender, 0, block.timestamp, 27, "r", "s");
        plain.approve(address(escrow), type(uint256).max);
        plain.approve(address(registry), type(uint256).max);
        escrow.open(JOB, 5 ether, spender, 5 ether);
        escrow.openWithPermit("other", 5 ether, spender, 0, block.timestamp, 27, "r", "s");
        registry.stake(1 ether);
        registry.stakeWithPermit(2 ether, block.timestamp, 27, "r", "s");
        equal(registry.operatorOf(address(this)).stake, 3 ether, "staked");
        escrow.redeem(JOB, node, 2 ether, signed(SPENDER_KEY, voucher(node, 2 ether)));
        escrow.draw(JOB, node);
        equal(plain.balanceOf(node), 2 ether, "paid");
    }

    function testFuzz_cumulative_amounts_add_up(uint96[4] calldata amounts) public {
        openJob();
        uint128 cumulative;
        uint32 number;
        for (uint256 i = 0; i < amounts.length; i++) {
            uint128 next = cumulative + uint128(amounts[i]) % (DEPOSIT / 4);
            if (i % 2 == 0) {
                settleOne(CLIENT_KEY, number++, next);
            } else if (next > cumulative) {
                escrow.redeem(JOB, node, next, signed(CLIENT_KEY, voucher(node, next)));
            }
            cumulative = next;
        }
        equal(escrow.jobOf(JOB).earned, cumulative, "the job's sum is the provider's");
        if (cumulative > 0) escrow.draw(JOB, node);
        equal(token.balanceOf(payout), cumulative, "all of it, once");
        equal(token.balanceOf(address(escrow)), DEPOSIT - cumulative, "and no more left the escrow");
    }
}

/// Gas of what is done often; the budgets are the project's targets.
contract EscrowGasTest is Base {
    uint32 private constant STAGES = 1_000;
    uint256 private constant PROVIDERS = 10;

    function many(uint128 cumulative) private pure returns (JobEscrow.Earning[] memory earnings) {
        earnings = new JobEscrow.Earning[](PROVIDERS);
        for (uint256 i = 0; i < PROVIDERS; i++) {
            earnings[i] = JobEscrow.Earning(address(uint160(0xBEEF00 + i)), cumulative);
        }
    }

    function settleMany(uint32 number, uint128 cumulative, bytes memory records) private returns (uint256) {
        JobEscrow.Batch memory batch = batchOf(number, STAGES);
        bytes memory signature = signed(CLIENT_KEY, settlement(batch, many(cumulative), records));
        escrow.settle(batch, many(cumulative), records, signature);
        return vm.snapshotGasLastCall(
            records.length > 0 ? "settle 1000 stages with records" : number == 0 ? "settle first" : "settle repeated"
        );
    }

    function test_settlements_and_vouchers_stay_within_their_budgets() public {
        openJob();
        require(settleMany(0, 1 ether, "") <= 340_000, "first");
        uint256 repeated = settleMany(1, 2 ether, "");
        require(repeated <= 140_000, "repeated");
        bytes memory records = new bytes(STAGES * 64);
        for (uint256 i = 0; i < records.length; i++) {
            records[i] = 0xA5;
        }
        require((settleMany(2, 3 ether, records) - repeated) / STAGES <= 2_800, "a stage");
        escrow.redeem(JOB, node, 1 ether, signed(CLIENT_KEY, voucher(node, 1 ether)));
        bytes memory signature = signed(CLIENT_KEY, voucher(node, 2 ether));
        escrow.redeem(JOB, node, 2 ether, signature);
        require(vm.snapshotGasLastCall("redeem repeated") <= 60_000, "voucher");
    }
}
