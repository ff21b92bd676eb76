// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Base} from "./Base.sol";
import {Disputes} from "../src/Disputes.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {ProviderRegistry} from "../src/ProviderRegistry.sol";

contract RegistryTest is Base {
    function receipt(bytes32 outputsRoot) private view returns (Disputes.TaskReceipt memory) {
        return Disputes.TaskReceipt("order", node, "profile", "inputs", outputsRoot, 1, 2, 3);
    }

    function by(uint256 key, Disputes.TaskReceipt memory what) private view returns (Disputes.SignedReceipt memory) {
        return Disputes.SignedReceipt(what, signed(key, typed(address(escrow), disputes.receiptHash(what))));
    }

    function prove(bytes32 a, bytes32 b) private {
        disputes.proveEquivocation(by(NODE_KEY, receipt(a)), by(NODE_KEY, receipt(b)));
    }

    function test_two_receipts_for_one_order_cost_stake_once() public {
        uint256 supply = token.totalSupply();
        uint256 before = token.balanceOf(address(this));
        prove("a", "b");
        equal(registry.operatorOf(operator).stake, 400 ether, "the penalty");
        equal(token.balanceOf(address(this)) - before, 10 ether, "a tenth for the proof");
        equal(supply - token.totalSupply(), 90 ether, "the rest is burned");
        equal(registry.operatorOf(operator).convictions, 1, "on record");
        vm.expectRevert(
            abi.encodeWithSelector(
                Disputes.AlreadyConvicted.selector, bytes32("order"), node, Disputes.Offence.Equivocation
            )
        );
        this.proveAgain();
    }

    function proveAgain() external {
        prove("a", "c");
    }

    function test_what_proves_nothing_is_refused() public {
        Disputes.SignedReceipt memory a = by(NODE_KEY, receipt("a"));
        vm.expectRevert(Disputes.NoOffence.selector);
        disputes.proveEquivocation(a, a);
        Disputes.SignedReceipt memory b = by(CLIENT_KEY, receipt("b"));
        vm.expectRevert(abi.encodeWithSelector(Disputes.BadSignature.selector, client));
        disputes.proveEquivocation(a, b);
        b.signature = "";
        vm.expectRevert(abi.encodeWithSelector(ECDSA.ECDSAInvalidSignatureLength.selector, 0));
        disputes.proveEquivocation(a, b);
        vm.expectRevert(abi.encodeWithSelector(ECDSA.ECDSAInvalidSignatureLength.selector, 0));
        disputes.proveEquivocation(b, a);
        b.receipt.orderHash = "other order";
        b = by(NODE_KEY, b.receipt);
        vm.expectRevert(Disputes.NoOffence.selector);
        disputes.proveEquivocation(a, b);
        b.receipt = receipt("b");
        b.receipt.provider = client;
        b = by(CLIENT_KEY, b.receipt);
        vm.expectRevert(Disputes.NoOffence.selector);
        disputes.proveEquivocation(a, b);
        vm.expectRevert(ProviderRegistry.OnlyDisputes.selector);
        registry.slash(node, 1, address(this));
        equal(registry.operatorOf(operator).stake, 500 ether, "untouched");
    }

    function test_stake_on_its_way_out_is_slashed_too() public {
        vm.prank(operator);
        registry.unstake(450 ether);
        prove("a", "b");
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
        prove("a", "b");
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

    function test_it_is_not_deployed_without_its_parts() public {
        vm.expectRevert(ProviderRegistry.Zero.selector);
        new ProviderRegistry(ERC20Burnable(address(0)), address(1), address(1));
        vm.expectRevert(ProviderRegistry.Zero.selector);
        new ProviderRegistry(token, address(0), address(1));
        vm.expectRevert(ProviderRegistry.Zero.selector);
        new ProviderRegistry(token, address(1), address(0));
    }
}
