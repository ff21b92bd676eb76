// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Base} from "./Base.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {ProviderRegistry} from "../src/ProviderRegistry.sol";

contract RegistryTest is Base {
    function prove(bytes32 order) private {
        disputes.proveEquivocation(by(NODE_KEY, receiptOf(node, order, 1)), by(NODE_KEY, receiptOf(node, order, 2)));
    }

    function test_stake_on_its_way_out_is_slashed_too() public {
        vm.prank(operator);
        registry.unstake(450 ether);
        prove("order");
        equal(registry.operatorOf(operator).stake, 0, "stake first");
        equal(registry.operatorOf(operator).unbonding, 400 ether, "then what unbonds");
        vm.warp(block.timestamp + registry.UNBONDING());
        vm.prank(operator);
        registry.withdraw();
        equal(token.balanceOf(operator), 900 ether, "the rest");
    }

    function test_a_node_without_stake_is_convicted_for_nothing() public {
        vm.startPrank(operator);
        registry.unstake(500 ether);
        vm.warp(block.timestamp + registry.UNBONDING());
        registry.withdraw();
        vm.stopPrank();
        prove("order");
        equal(registry.operatorOf(operator).convictions, 1, "on record all the same");
    }

    function test_stake_leaves_after_its_time_only() public {
        vm.startPrank(operator);
        vm.expectRevert(ProviderRegistry.Zero.selector);
        registry.stake(0);
        vm.expectRevert(ProviderRegistry.Zero.selector);
        registry.unstake(0);
        vm.expectRevert(abi.encodeWithSelector(ProviderRegistry.TooMuch.selector, 501 ether, 500 ether));
        registry.unstake(501 ether);
        vm.expectRevert(ProviderRegistry.Zero.selector);
        registry.withdraw();
        registry.unstake(100 ether);
        uint64 releaseAt = uint64(block.timestamp) + registry.UNBONDING();
        vm.expectRevert(abi.encodeWithSelector(ProviderRegistry.TooEarly.selector, releaseAt));
        registry.withdraw();
        vm.warp(releaseAt);
        registry.withdraw();
        equal(token.balanceOf(operator), 600 ether, "out");
        vm.stopPrank();
    }

    function test_nodes_consent_belong_to_one_and_are_revoked_for_good() public {
        uint256 key = 0xABCD;
        address fresh = vm.addr(key);
        require(registry.payoutOf(fresh) == fresh, "nobody's node is paid itself");
        bytes memory forged = signed(CLIENT_KEY, consent(operator));
        vm.startPrank(operator);
        vm.expectRevert(abi.encodeWithSelector(ProviderRegistry.NoConsent.selector, fresh));
        registry.delegate(fresh, forged);
        vm.expectRevert(abi.encodeWithSelector(ECDSA.ECDSAInvalidSignatureLength.selector, 0));
        registry.delegate(fresh, hex"");
        vm.stopPrank();
        registry.delegate(fresh, signed(key, consent(address(this))));
        require(registry.payoutOf(fresh) == address(this), "without a payout address, the operator's own");
        bytes memory other = signed(key, consent(operator));
        vm.prank(operator);
        vm.expectRevert(abi.encodeWithSelector(ProviderRegistry.NodeTaken.selector, fresh, address(this)));
        registry.delegate(fresh, other);
        vm.prank(operator);
        vm.expectRevert(abi.encodeWithSelector(ProviderRegistry.NotYourNode.selector, fresh));
        registry.revoke(fresh);
        require(registry.mayEarn(fresh), "in service");
        registry.revoke(fresh);
        require(!registry.mayEarn(fresh) && registry.nodeOf(fresh).operator == address(this), "revoked, not forgotten");
        vm.expectRevert(ProviderRegistry.Zero.selector);
        registry.setPayout(address(0));
    }

    function test_a_permit_stakes_and_a_used_one_does_no_harm() public {
        uint256 key = 0x57A4E2;
        address fresh = vm.addr(key);
        token.transfer(fresh, 10 ether);
        (uint8 v, bytes32 r, bytes32 s) = permit(key, address(registry), 4 ether);
        vm.startPrank(fresh);
        registry.stakeWithPermit(4 ether, block.timestamp, v, r, s);
        vm.expectRevert(
            abi.encodeWithSelector(IERC20Errors.ERC20InsufficientAllowance.selector, address(registry), 0, 4 ether)
        );
        registry.stakeWithPermit(4 ether, block.timestamp, v, r, s);
        token.approve(address(registry), 4 ether);
        registry.stakeWithPermit(4 ether, block.timestamp, v, r, s);
        vm.stopPrank();
        equal(registry.operatorOf(fresh).stake, 8 ether, "staked");
    }

    function test_what_nodes_were_paid_is_their_operators_fame_and_only_the_escrow_notes_it() public {
        openJob();
        settleOne(CLIENT_KEY, 0, 10 ether);
        equal(registry.operatorOf(operator).paid, 0, "not yet paid");
        escrow.draw(JOB, node);
        settleOne(CLIENT_KEY, 1, 12 ether);
        escrow.draw(JOB, node);
        equal(registry.operatorOf(operator).paid, 12 ether, "all that was drawn");
        address own = address(0x123);
        escrow.redeem(JOB, own, 3 ether, signed(CLIENT_KEY, voucher(own, 3 ether)));
        escrow.draw(JOB, own);
        equal(registry.operatorOf(own).paid, 3 ether, "without an operator, the node's own");
        vm.expectRevert(ProviderRegistry.OnlyEscrow.selector);
        registry.notePaid(node, 1);
    }

    function test_stake_outlasts_every_dispute() public view {
        require(registry.UNBONDING() > escrow.CHALLENGE_WINDOW(), "windows");
    }

    function test_it_is_not_deployed_without_its_parts() public {
        vm.expectRevert(ProviderRegistry.Zero.selector);
        new ProviderRegistry(ERC20Burnable(address(0)), address(1), address(1));
        vm.expectRevert(ProviderRegistry.Zero.selector);
        new ProviderRegistry(token, address(0), address(1));
        vm.expectRevert(ProviderRegistry.Zero.selector);
        new ProviderRegistry(token, address(1), address(0));
    }
}
